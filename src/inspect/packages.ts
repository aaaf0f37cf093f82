/**
 * Package databases as lists of applications. rpm's is read by the daemon; these are text files. The rules are those
 * that virt-inspector goes by, so that both say the same. Pure; called by systems.ts.
 */

import type { Application } from './report.ts'

const NONE: Application = {
  ...{ name: '', displayName: '', epoch: 0, version: '', release: '', arch: '', installPath: '', publisher: '' },
  ...{ url: '', sourcePackage: '', summary: '', description: '' },
}

/** "1:2.3-4" → epoch 1, version 2.3, release 4; undefined where the epoch is no number. */
export function splitVersion(text: string): { epoch: number; version: string; release: string } | undefined {
  const colon = text.indexOf(':')
  const epoch = colon === -1 ? 0 : Number(text.slice(0, colon))
  if (colon !== -1 && !/^\d{1,9}$/.test(text.slice(0, colon))) return undefined
  const rest = text.slice(colon + 1)
  const dash = rest.indexOf('-')
  return dash === -1
    ? { epoch, version: rest, release: '' }
    : { epoch, version: rest.slice(0, dash), release: rest.slice(dash + 1) }
}

/** /var/lib/dpkg/status: paragraphs of fields, a field may go on in lines that begin with a space. */
export function dpkgApplications(status: string): Application[] {
  const found: Application[] = []
  // Only what an empty line ends is a paragraph.
  for (const paragraph of status.split('\n\n').slice(0, -1)) {
    const fields = dpkgFields(paragraph)
    const version = splitVersion(fields.get('Version') ?? '')
    const name = fields.get('Package')
    if (!name || !version || !fields.has('Version') || !fields.get('Status')?.includes('installed')) continue
    const [summary = '', ...more] = (fields.get('Description') ?? '').split('\n')
    found.push({
      ...NONE,
      ...version,
      ...{ name, arch: fields.get('Architecture') ?? '', url: fields.get('Homepage') ?? '', summary },
      ...{ sourcePackage: (fields.get('Source') ?? '').split(' ')[0]!, description: more.join('\n') },
    })
  }
  return sorted(found)
}

const DPKG_FIELDS = new Set(['Package', 'Status', 'Version', 'Architecture', 'Homepage', 'Source', 'Description'])

function dpkgFields(paragraph: string): Map<string, string> {
  const fields = new Map<string, string>()
  let current: string | undefined
  for (const line of paragraph.split('\n')) {
    if (line.startsWith(' ')) {
      if (current === 'Description') fields.set(current, `${fields.get(current)}\n${line.slice(1)}`)
      continue
    }
    const colon = line.indexOf(': ')
    current = colon === -1 ? undefined : line.slice(0, colon)
    if (current !== undefined && DPKG_FIELDS.has(current)) fields.set(current, line.slice(colon + 2))
  }
  return fields
}

/** /lib/apk/db/installed: one letter, a colon, a value. */
export function apkApplications(installed: string): Application[] {
  const found: Application[] = []
  for (const paragraph of installed.split('\n\n')) {
    const fields = new Map(paragraph.split('\n').flatMap((line) => (line[1] === ':' ? [[line[0], line.slice(2)]] : [])))
    const name = fields.get('P')
    const version = splitVersion(fields.get('V') ?? '')
    if (!name || !fields.has('V') || !version) continue
    found.push({
      ...NONE,
      ...{ ...version, name, release: version.release.replace(/^r/, '') },
      ...{ arch: fields.get('A') ?? '', url: fields.get('U') ?? '', description: fields.get('T') ?? '' },
    })
  }
  return sorted(found)
}

/** /var/lib/pacman/local/NAME/desc: %KEY%, then the value; one file for each package. */
export function pacmanApplications(files: readonly string[]): Application[] {
  const found: Application[] = []
  for (const file of files) {
    const fields = new Map<string, string>()
    for (const block of file.split('\n\n')) {
      const [key = '', value] = block.split('\n')
      if (value !== undefined) fields.set(key, value)
    }
    const [name, arch] = [fields.get('%NAME%'), fields.get('%ARCH%')]
    const version = splitVersion(fields.get('%VERSION%') ?? '')
    if (!name || !arch || !version?.version || !version.release) continue
    const [url, description] = [fields.get('%URL%') ?? '', fields.get('%DESC%') ?? '']
    found.push({ ...NONE, ...version, name, arch, url, description })
  }
  return sorted(found)
}

/** By the bytes of the name; equal ones stay as they were. */
export function sorted(applications: readonly Application[]): Application[] {
  return applications.toSorted((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)))
}
