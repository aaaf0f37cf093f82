/** The rules of the house that a machine can check: see CONTRIBUTING.md. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = resolve(import.meta.dirname, '..')
const src = join(root, 'src')

function files(folder: string): string[] {
  if (!existsSync(join(root, folder))) return []
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name))
}

const sources = files('src')
const text = new Map(sources.map((file) => [file, readFileSync(join(root, file), 'utf8')]))
/** The code of a file without comments, so that prose may say anything. */
const code = new Map(
  [...text].map(([file, whole]) => [file, whole.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1')]),
)

function imports(file: string): string[] {
  return [
    ...text.get(file)!.matchAll(/^(?:import|export)\b[^'"]*?from '([^']+)'|^import '([^']+)'|\bimport\('([^']+)'\)/gm),
  ].map((m) => m[1] ?? m[2] ?? m[3]!)
}

/** src/ring/chain.ts imports '../mem/iovec.ts' → "mem/iovec.ts". */
function inside(file: string, specifier: string): string {
  return relative(src, resolve(root, dirname(file), specifier))
}

function offenders(pattern: RegExp, where: (file: string) => boolean): string[] {
  return sources.filter((file) => where(file) && pattern.test(code.get(file)!))
}

describe('the house', () => {
  it('no file is longer than can be read in one go', () => {
    const long = [
      ...sources,
      ...['lab', 'bench', 'conformance', 'fuzz', 'soak', 'kill', 'matrix', 'scenarios'].flatMap(files),
    ].filter((file) => readFileSync(join(root, file), 'utf8').split('\n').length > 350)
    expect(long).toEqual([])
  })

  it('every source file starts by saying its job', () => {
    expect(sources.filter((file) => !/^(#!.*\n)?\/\*\*/.test(text.get(file)!))).toEqual([])
  })

  it('koffi is met in ffi/ only', () => {
    expect(sources.filter((file) => !file.startsWith('src/ffi/') && imports(file).includes('koffi'))).toEqual([])
  })

  it('the core imports nothing of Node: it runs anywhere', () => {
    const core = /^src\/(spec|mem|ring|driver|device)\//
    const door = /^src\/(device|driver)\/attach\/(?!loopback)/
    const bad = sources.filter(
      (file) => core.test(file) && !door.test(file) && imports(file).some((name) => !name.startsWith('.')),
    )
    expect(bad).toEqual([])
  })

  it('arrows point one way', () => {
    // Who may import whom, by first folder; types of errors and log are everybody's.
    const allowed: Record<string, RegExp> = {
      spec: /^(spec|errors\.ts)/,
      mem: /^(spec|mem|errors\.ts)/,
      ring: /^(spec|mem|ring|errors\.ts)/,
      ffi: /^(ffi|chardev\/chardev\.ts|errors\.ts|mem\/(iovec|receipts)\.ts|log\.ts|store\.ts)/,
      device: /^(spec|mem|ring|device|ffi|errors\.ts|log\.ts|store\.ts|chardev\/chardev\.ts)/,
      driver:
        /^(spec|mem|ring|driver|ffi|errors\.ts|log\.ts|chardev\/chardev\.ts|device\/attach\/loopback\.ts|device\/pci\/function\.ts)/,
      // A bundle for guests: nothing of the host's half but its words, and what usernet has of it.
      guest: /^(guest|usernet|driver|chardev|spec|client\/abort\.ts|errors\.ts|escape\.ts|log\.ts|mem\/iovec\.ts)/,
      chardev: /^(chardev|ffi|mem|errors\.ts|log\.ts|store\.ts)/,
      keeper: /^(keeper|ffi|errors\.ts|escape\.ts|store\.ts|daemon\/(protocol|stderr|stdin)\.ts)/,
      inspect: /^(inspect|client|library|qemu|errors\.ts|log\.ts)/,
      qemu: /^(qemu|usernet\/place\.ts|chardev|port-spec\.ts|errors\.ts|log\.ts|spec)/,
      usernet: /^(usernet|device|driver|ffi|mem|chardev\/chardev\.ts|errors\.ts|log\.ts|store\.ts|port-spec\.ts)/,
      qmp: /^(qmp|client\/abort\.ts|errors\.ts)/,
      screenlock: /^(screenlock|agent|qmp|client|daemon\/protocol\.ts|udev\/installer\.ts|errors\.ts|escape\.ts)/,
      clipboard: /^(clipboard|client|daemon\/protocol\.ts|errors\.ts|escape\.ts)/,
      agent: /^(agent|client|daemon\/protocol\.ts|errors\.ts|escape\.ts)/,
    }
    const wrong: string[] = []
    for (const file of sources) {
      const rule = allowed[file.split('/')[1]!]
      if (!rule) continue
      for (const name of imports(file))
        if (name.startsWith('.') && !rule.test(inside(file, name))) wrong.push(`${file} → ${inside(file, name)}`)
    }
    expect(wrong).toEqual([])
  })

  it('only attachments and back ends make native calls', () => {
    const may = /^src\/(ffi|chardev|daemon|keeper|cli|usernet)\/|^src\/(device|driver)\/attach\//
    const bad = sources.filter(
      (file) =>
        !may.test(file) && imports(file).some((name) => name.startsWith('.') && inside(file, name).startsWith('ffi/')),
    )
    expect(bad).toEqual([])
  })

  it('what is said goes through the one function that escapes it', () => {
    // Bytes that are the data themselves: a port's, a program's, a file's.
    const raw = ['src/cli/connect.ts', 'src/cli/agent-exec.ts', 'src/cli/agent-file.ts']
    const escaping = [
      'src/cli/print.ts',
      'src/cli/say-now.ts',
      'src/guest/main.ts',
      'src/daemon/log.ts',
      'src/keeper/main.ts',
    ]
    const writes =
      /\bprocess\.(stdout|stderr)(?!\.(columns|isTTY|fd)\b|\.on\('error')|\bwriteSync\([12]\b|\bconsole\.\w+\(|\bopenStderr\(/
    const questions =
      /(paint|commandHelp|validateStream)[^\n]*process\.(stdout|stderr)|process\.stderr : process\.stdout/g
    const may = new Set([...raw, ...escaping, 'src/daemon/stderr.ts'])
    const bad = sources.filter((file) => !may.has(file) && writes.test(code.get(file)!.replace(questions, '')))
    expect(bad).toEqual([])
    for (const file of escaping) expect(text.get(file), file).toMatch(/\bescape(Line|Text)\b/)
  })

  it('the conformance suite takes nothing of our tests but their support', () => {
    const wrong = files('conformance').filter((file) =>
      /from '[./]*\/test\/(?!support\/)|from 'vitest'/.test(readFileSync(join(root, file), 'utf8')),
    )
    expect(wrong).toEqual([])
  })

  it('nothing that Node cannot strip, nothing untyped, no barrel', () => {
    expect(
      offenders(/\b(enum|namespace) \w+ \{|\bas any\b|: any\b|@ts-ignore|export default|export \*/, () => true),
    ).toEqual([])
  })

  it('no BigInt and no promise on the data path', () => {
    const path = (file: string): boolean =>
      /^src\/(ring|mem)\/|^src\/device\/(port|transmit|receive|hold-buffer|control)\.ts/.test(file)
    expect(offenders(/\bBigInt\b|\b\d+n\b|\basync\b|\bawait\b|\bPromise\b/, path)).toEqual([])
  })
})
