/**
 * `npm run matrix`: every device under every driver, on real peers; a table, or a line of JSON for each cell.
 * `npm run matrix -- [--json] [--short] [WORD…]`: words choose cells, as in `ours uio 6.1`.
 */
import { parseArgs } from 'node:util'
import { allCells, cellName, shortCells, type Cell } from './cells.ts'
import { runCell, type CellResult } from './run-cell.ts'

const USAGE = `usage: npm run matrix -- [--json] [--short] [WORD…]
  --json   a line of JSON for each cell
  --short  a few cells only
  WORD     only cells with these words: ours qemu modern transitional uio vfio qtest linux iommu ovmf 6.1 7.x 7.2 11.1
`

interface Wish {
  json: boolean
  cells: Cell[]
}

function parse(words: string[]): Wish | undefined {
  try {
    const flag = { type: 'boolean', default: false } as const
    const { values, positionals } = parseArgs({
      args: words,
      allowPositionals: true,
      options: { json: flag, short: flag },
    })
    const cells = (values.short ? shortCells() : allCells()).filter((cell) =>
      positionals.every((word) => cellName(cell).split(' ').includes(word)),
    )
    if (cells.length === 0) throw new RangeError(`no cell has all of these words: ${positionals.join(' ')}`)
    return { json: values.json, cells }
  } catch (error) {
    process.stderr.write(`matrix: ${(error as Error).message}\n${USAGE}`)
    return undefined
  }
}

/** A row of a Markdown table, so that it can stand in the README. */
function row(words: readonly string[]): string {
  return `| ${words.join(' | ')} |\n`
}

function show({ device, shape, driver, iommu, ovmf, kernel, qemu, status, why, seconds }: CellResult): string {
  const what = status === 'pass' ? `pass (${seconds} s)` : `${status}: ${why.replaceAll(/\s+/g, ' ').slice(0, 300)}`
  return row([
    device,
    shape,
    `${driver}${iommu ? ', IOMMU' : ''}${ovmf ? ', after OVMF' : ''}`,
    kernel ?? '',
    qemu,
    what,
  ])
}

async function main({ json, cells }: Wish): Promise<void> {
  const count = { pass: 0, fail: 0, 'n/a': 0 }
  if (!json) {
    process.stdout.write(row(['device', 'shape', 'driver', 'kernel', 'QEMU', 'result']))
    process.stdout.write(row(Array.from({ length: 6 }, () => '---')))
  }
  for (const cell of cells) {
    const result = await runCell(cell)
    count[result.status]++
    process.stdout.write(json ? `${JSON.stringify(result)}\n` : show(result))
  }
  process.stderr.write(`matrix: ${count.pass} pass, ${count.fail} fail, ${count['n/a']} not applicable\n`)
  if (count.fail > 0) process.exitCode = 1
}

const wish = parse(process.argv.slice(2))
if (wish) await main(wish)
else process.exitCode = 2
