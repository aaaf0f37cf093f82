/** virt-inspector's XML, and our report in the same shape, so that they can be compared field by field. */
import type { Application, OperatingSystem } from '../../src/inspect/report.ts'

/** One system: its plain fields, and its lists as sets of fields. */
export interface Inspected {
  fields: Record<string, string>
  mountpoints: Record<string, string>[]
  filesystems: Record<string, string>[]
  drives: Record<string, string>[]
  applications: Record<string, string>[]
}

const LISTS = ['mountpoints', 'filesystems', 'drive_mappings', 'applications'] as const

export function parseVirtInspector(xml: string): Inspected[] {
  return [...xml.matchAll(/<operatingsystem>([^]*?)<\/operatingsystem>/g)].map(([, body = '']) => {
    const list = (name: string, item: string, attribute?: string): Record<string, string>[] => {
      const inner = new RegExp(`<${name}>([^]*?)</${name}>`).exec(body)?.[1] ?? ''
      const items = inner.matchAll(new RegExp(`<${item}((?: [^>]*?)?)(?:/>|>([^]*?)</${item}>)`, 'g'))
      return [...items].map(([, head = '', content = '']) => {
        const named = attribute === undefined ? {} : { [attribute]: text(/="([^"]*)"/.exec(head)?.[1] ?? '') }
        return content.includes('<') ? { ...named, ...elements(content) } : { ...named, ...plain(content) }
      })
    }
    const rest = LISTS.reduce((left, name) => left.replace(new RegExp(`<${name}>[^]*?</${name}>`), ''), body)
    return {
      fields: elements(rest),
      mountpoints: list('mountpoints', 'mountpoint', 'dev'),
      filesystems: list('filesystems', 'filesystem', 'dev'),
      drives: list('drive_mappings', 'drive_mapping', 'name'),
      applications: list('applications', 'application'),
    }
  })
}

function plain(content: string): Record<string, string> {
  return content === '' ? {} : { text: text(content) }
}

function elements(xml: string): Record<string, string> {
  return Object.fromEntries(
    [...xml.matchAll(/<(\w+)>([^<]*)<\/\1>/g)].map(([, name = '', value = '']) => [name, text(value)]),
  )
}

function text(xml: string): string {
  return xml
    .replaceAll(/&#(\d+);/g, (_, code: string) => String.fromCodePoint(Number(code)))
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&amp;', '&')
}

/** The names of virt-inspector, which leaves out what is not known. */
export function asVirtInspector(system: OperatingSystem): Inspected {
  return {
    fields: present({
      root: system.root,
      name: system.type,
      arch: system.arch,
      distro: system.distro,
      product_name: system.productName,
      product_variant: system.productVariant,
      major_version: String(system.majorVersion),
      minor_version: String(system.minorVersion),
      package_format: system.packageFormat,
      package_management: system.packageManagement,
      hostname: system.hostname,
      osinfo: system.osinfo,
      windows_systemroot: system.windowsSystemroot,
      windows_current_control_set: system.windowsCurrentControlSet,
    }),
    mountpoints: system.mountpoints.map(({ path, device }) => ({ dev: device, text: path })),
    filesystems: system.filesystems.map(({ device, type, label, uuid }) => present({ dev: device, type, label, uuid })),
    drives: system.driveMappings.map(({ drive, device }) => ({ name: drive, text: device })),
    applications: (system.applications ?? []).map(application),
  }
}

function application(app: Application): Record<string, string> {
  return present({
    name: app.name,
    display_name: app.displayName,
    epoch: app.epoch === 0 ? '' : String(app.epoch),
    version: app.version,
    release: app.release,
    arch: app.arch,
    install_path: app.installPath,
    publisher: app.publisher,
    url: app.url,
    source_package: app.sourcePackage,
    summary: app.summary,
    description: app.description,
  })
}

function present(values: Record<string, string | null>): Record<string, string> {
  return Object.fromEntries(Object.entries(values).filter((entry): entry is [string, string] => !!entry[1]))
}
