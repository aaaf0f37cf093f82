/** Package databases and names of systems, by the rules of virt-inspector. */
import { describe, expect, it } from 'vitest'
import { osinfoName } from '../../src/inspect/osinfo.ts'
import { apkApplications, dpkgApplications, pacmanApplications, splitVersion } from '../../src/inspect/packages.ts'

describe('packages', () => {
  it.each([
    ['1:2.3-4', { epoch: 1, version: '2.3', release: '4' }],
    ['2.3-4-5', { epoch: 0, version: '2.3', release: '4-5' }],
    ['2.3', { epoch: 0, version: '2.3', release: '' }],
    ['x:2.3', undefined],
    ['99999999999:1', undefined],
  ])('version %s', (text, parts) => expect(splitVersion(text)).toEqual(parts))

  it('dpkg: what is installed, with its description; what is not ended is not there', () => {
    const status = [
      'Package: zlib1g\nStatus: install ok installed\nVersion: 1:1.2.13.dfsg-1\nArchitecture: amd64\nSource: zlib (1.2)',
      '\nHomepage: http://zlib.net/\nConffiles:\n /etc/x 123\nDescription: compression library\n zlib is a\n .\n library.\n\n',
      'Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n',
      'Package: nameless-version\nStatus: install ok installed\n\n',
      'Package: a\nStatus: install ok installed\nVersion: 2\n\n',
      'Package: unfinished\nStatus: install ok installed\nVersion: 2\n',
    ].join('')
    const found = dpkgApplications(status)
    expect(found.map(({ name }) => name)).toEqual(['a', 'zlib1g'])
    expect(found[1]).toMatchObject({
      ...{
        epoch: 1,
        version: '1.2.13.dfsg',
        release: '1',
        arch: 'amd64',
        url: 'http://zlib.net/',
        sourcePackage: 'zlib',
      },
      ...{ summary: 'compression library', description: 'zlib is a\n.\nlibrary.' },
    })
    expect(dpkgApplications('')).toEqual([])
  })

  it('apk', () => {
    const text =
      'C:Q1x=\nP:busybox\nV:1.36.1-r5\nA:x86_64\nU:https://busybox.net/\nT:Tools\nF:bin\nR:busybox\n\nP:nothing\n\n'
    expect(apkApplications(text)).toMatchObject([
      {
        name: 'busybox',
        version: '1.36.1',
        release: '5',
        arch: 'x86_64',
        url: 'https://busybox.net/',
        description: 'Tools',
      },
    ])
  })

  it('pacman', () => {
    const file =
      '%NAME%\nbash\n\n%VERSION%\n2:5.2.015-1\n\n%DESC%\nThe shell\n\n%ARCH%\nx86_64\n\n%URL%\nhttps://gnu.org\n\n'
    const broken = '%NAME%\nx\n\n%VERSION%\n1\n\n%ARCH%\nany\n'
    expect(pacmanApplications([broken, file])).toMatchObject([
      {
        name: 'bash',
        epoch: 2,
        version: '5.2.015',
        release: '1',
        arch: 'x86_64',
        url: 'https://gnu.org',
        description: 'The shell',
      },
    ])
  })
})

describe('libosinfo names', () => {
  const name = (type: string, distro: string | null, majorVersion: number, minorVersion: number, more = {}) =>
    osinfoName({ type, distro, majorVersion, minorVersion, productName: null, productVariant: null, ...more })

  it.each([
    [name('linux', 'debian', 12, 15), 'debian12'],
    [name('linux', 'ubuntu', 22, 4), 'ubuntu22.04'],
    [name('linux', 'centos', 7, 9), 'centos7.0'],
    [name('linux', 'centos', 6, 5), 'centos6.5'],
    [name('linux', 'rocky', 9, 1), 'rocky9'],
    [name('linux', 'sles', 15, 3), 'sle15sp3'],
    [name('linux', 'archlinux', 0, 0), 'archlinux'],
    [name('linux', 'rhel', 9, 2), 'rhel9.2'],
    [name('linux', null, 1, 0), null],
    [name('freebsd', 'freebsd', 13, 2), 'freebsd13.2'],
    [name('windows', 'windows', 6, 1), 'win7'],
    [
      name('windows', 'windows', 10, 0, { productVariant: 'ServerStandard', productName: 'Windows Server 2022' }),
      'win2k22',
    ],
    [null, null],
  ])('%s', (found, expected) => expect(found).toBe(expected))
})
