/** A short form of `npm run matrix`: a few cells on real peers, those that no other test has. Needs the build. */
import { describe, expect, it } from 'vitest'
import { allCells, cellName, shortCells } from '../../matrix/cells.ts'
import { CHECKS } from '../../matrix/checks.ts'
import { runCell } from '../../matrix/run-cell.ts'

describe('the matrix', () => {
  it('has every device under every driver, kernel and QEMU; what cannot be says why', () => {
    const cells = allCells()
    expect(new Set(cells.map(cellName)).size).toBe(cells.length)
    const never = cells.filter(({ never: why }) => why !== undefined)
    expect(never.every(({ never: why }) => why!.length > 20)).toBe(true)
    expect(cells.length - never.length).toBe(33)
  })

  it.each(shortCells().map((cell) => [cellName(cell), cell] as const))(
    '%s',
    async (_, cell) => {
      const result = await runCell(cell)
      expect(result, [result.why, ...(result.log ?? [])].join('\n')).toMatchObject({ status: 'pass', why: '' })
      expect(result.checked).toEqual(Object.keys(CHECKS))
    },
    600_000,
  )

  it('a cell that cannot be is not run', async () => {
    const cell = allCells().find(({ never }) => never !== undefined)!
    expect(await runCell(cell)).toMatchObject({ status: 'n/a', why: cell.never, checked: [] })
  })
})
