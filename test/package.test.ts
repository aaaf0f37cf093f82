/** What npm would publish: nothing that leads to files that are not in it. Needs the build (`npm test` makes it). */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'

const ROOT = dirname(import.meta.dirname)
const text = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
let files: string[] = []
beforeAll(() => {
  const json = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: ROOT, encoding: 'utf8' })
  files = (JSON.parse(json) as [{ files: { path: string }[] }])[0].files.map(({ path }) => path)
}, 60_000)

/** A file, or a folder with files in it. */
const has = (path: string): boolean =>
  files.includes(path) || files.some((one) => one.startsWith(`${path.replace(/\/$/, '')}/`))

describe('the package', () => {
  it('has no source map, and no program that names one', () => {
    expect(files.filter((path) => path.endsWith('.map'))).toEqual([])
    const programs = files.filter((path) => path.endsWith('.js'))
    expect(programs.length).toBeGreaterThan(100)
    expect(programs.filter((path) => text(path).includes('sourceMappingURL'))).toEqual([])
  })

  it('has a declaration for every program', () => {
    const bare = files.filter((path) => path.endsWith('.js') && !files.includes(path.replace(/\.js$/, '.d.ts')))
    expect(bare).toEqual([])
  })

  it('has all that package.json names', () => {
    const { bin, man, exports } = JSON.parse(text('package.json')) as {
      bin: Record<string, string>
      man: string[]
      exports: Record<string, string | Record<string, string>>
    }
    const doors = Object.values(exports).flatMap((door) => (typeof door === 'string' ? [door] : Object.values(door)))
    const named = [...Object.values(bin), ...man, ...doors].map((path) => posix.normalize(path))
    expect(named.filter((path) => !files.includes(path))).toEqual([])
  })

  it('has nothing of the tests, the lab and the measurements', () => {
    expect(
      files.filter((path) => /^(dist\/)?(test|lab|bench|fuzz|soak|matrix|scenarios|conformance)\//.test(path)),
    ).toEqual([])
  })

  it('its documents lead to files that are in it, and to headings that are there', () => {
    const dead: string[] = []
    const documents = files.filter((path) => path.endsWith('.md'))
    expect(documents).toContain('README.md')
    for (const document of documents)
      for (const [, link = ''] of text(document).matchAll(/\]\(([^()\s]+)\)/g)) {
        if (/^[a-z]+:/.test(link)) continue
        const [path = '', heading] = link.split('#')
        const target = path === '' ? document : posix.join(posix.dirname(document), path)
        if (!has(target)) dead.push(`${document}: ${link}`)
        else if (heading !== undefined && !headings(text(target)).includes(heading)) dead.push(`${document}: ${link}`)
      }
    expect(dead).toEqual([])
  })
})

/** As they are written behind "#". */
function headings(markdown: string): string[] {
  return [...markdown.matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replaceAll(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )
}
