/** libosinfo's short name of an operating system, by the rules of libguestfs's library (the daemon does not know it). */

import type { OperatingSystem } from './report.ts'

type Known = Pick<
  OperatingSystem,
  'type' | 'distro' | 'majorVersion' | 'minorVersion' | 'productName' | 'productVariant'
>

/** Null where none is known. */
export function osinfoName(system: Known): string | null {
  const { type, distro, majorVersion: major, minorVersion: minor } = system
  if (type === 'linux') return linuxName(distro, major, minor)
  if (type === 'freebsd' || type === 'netbsd' || type === 'openbsd') return `${distro ?? 'unknown'}${major}.${minor}`
  if (type === 'dos') return distro === 'msdos' ? 'msdos6.22' : null
  return type === 'windows' ? windowsName(system) : null
}

function linuxName(distro: string | null, major: number, minor: number): string | null {
  switch (distro) {
    case null:
      return null
    case 'centos':
      if (major >= 8) return `centos${major}`
      if (major === 7) return 'centos7.0'
      break
    case 'circle':
    case 'rocky':
      if (major >= 8) return `${distro}${major}`
      break
    case 'debian':
      if (major >= 4) return `debian${major}`
      break
    case 'fedora':
    case 'mageia':
      return `${distro}${major}`
    case 'sles': {
      const base = major >= 15 ? 'sle' : 'sles'
      return minor === 0 ? `${base}${major}` : `${base}${major}sp${minor}`
    }
    case 'ubuntu':
      return `ubuntu${major}.${String(minor).padStart(2, '0')}`
    case 'archlinux':
    case 'gentoo':
    case 'voidlinux':
      return distro
    case 'altlinux':
      if (major >= 8) return `alt${major}.${minor}`
      break
  }
  return major > 0 || minor > 0 ? `${distro}${major}.${minor}` : null
}

/** Version 5.1 and so on: what a client is called, what a server. */
const WINDOWS: Readonly<Record<string, readonly [client: string, server: string]>> = {
  '5.1': ['winxp', 'winxp'],
  '6.0': ['winvista', 'win2k8'],
  '6.1': ['win7', 'win2k8r2'],
  '6.2': ['win8', 'win2k12'],
  '6.3': ['win8.1', 'win2k12r2'],
}

function windowsName({ majorVersion, minorVersion, productName, productVariant }: Known): string | null {
  const version = `${majorVersion}.${minorVersion}`
  const server = productVariant?.includes('Server') ?? false
  const name = productName ?? ''
  if (version === '5.2') return name.includes('XP') ? 'winxp' : name.includes('R2') ? 'win2k3r2' : 'win2k3'
  if (version === '10.0') {
    if (!server) return 'win10'
    const year = /20(19|22|25)/.exec(name)?.[1]
    return `win2k${year ?? '16'}`
  }
  return WINDOWS[version]?.[server ? 1 : 0] ?? null
}
