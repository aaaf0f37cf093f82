/**
 * Nothing is forgotten: every id there has to be is in the catalogue, and has a case for each half that it concerns.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { CATALOG } from '../../conformance/catalog/catalog.ts'
import { DEVICE_CASES } from '../../conformance/device/cases.ts'
import { DRIVER_CASES } from '../../conformance/driver/cases.ts'

const numbered = (letter: string, count: number): string[] =>
  Array.from({ length: count }, (_, i) => `${letter}${i + 1}`)
const IDS = [
  ...numbered('R', 117),
  ...numbered('A', 9),
  ...numbered('B', 7),
  ...numbered('D', 3),
  ...numbered('E', 3),
  ...numbered('S', 18),
]

it('docs/conformance.md is of this catalogue', () => {
  const page = readFileSync(join(import.meta.dirname, '../../docs/conformance.md'), 'utf8')
  const rows = [
    ...page.matchAll(/^\| ([A-Z]\d+) \| ([^|]*) \| (.*?)(?: \(should\))? \| [^|]* \| [^|]* \| [^|]* \| [^|]* \|$/gm),
  ]
  // "npm run conformance -- --table" makes it anew.
  expect(rows.map(([, id, section, title]) => [id, section, title!.replaceAll('&lt;', '<')])).toEqual(
    CATALOG.map(({ id, section, title }) => [id, section, title]),
  )
})

describe('the catalogue', () => {
  it('has every rule, attack and defect, once', () => {
    expect(CATALOG.map(({ id }) => id).toSorted()).toEqual(IDS.toSorted())
    for (const { id, title, section } of CATALOG)
      expect([id, title.length > 10, section.length > 0]).toEqual([id, true, true])
  })

  for (const [half, cases] of [
    ['device', DEVICE_CASES],
    ['driver', DRIVER_CASES],
  ] as const)
    it(`has one case for each that concerns the ${half}, and no other`, () => {
      const concerned = CATALOG.filter((entry) => entry.half === half || entry.half === 'both').map(({ id }) => id)
      expect(cases.map(({ id }) => id).toSorted()).toEqual(concerned.toSorted())
      for (const entry of cases) if ('na' in entry) expect(entry.na.length).toBeGreaterThan(20)
    })
})
