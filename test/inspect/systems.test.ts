/** Which devices end up in the list of file systems, by a daemon that plays disks. */
import { expect, it } from 'vitest'
import { DaemonClient } from '../../src/inspect/daemon-client.ts'
import { Procedures } from '../../src/inspect/procedures.ts'
import { listFileSystems, listSystems } from '../../src/inspect/systems.ts'
import { XdrReader, XdrWriter } from '../../src/inspect/xdr.ts'
import { chunk, FakeDaemon, refusal, reply, text, texts } from './fake-daemon.ts'

const TYPES: Record<string, string> = {
  ...{ '/dev/sda1': 'ext4', '/dev/sda5': 'crypto_LUKS', '/dev/sda6': 'LVM2_member', '/dev/sdb': 'xfs' },
  ...{ '/dev/mapper/vg-root': 'ext4', '/dev/vg/root': 'ext4', '/dev/vg/data': 'btrfs' },
  ...{ '/dev/md1': 'linux_raid_member', '/dev/md12': 'ext4' },
}
const STATUS = 'Package: bash\nStatus: install ok installed\nVersion: 5.2-1\n\n'

/** A Debian on /dev/mapper/vg-root, with a /boot, and a /gone that is not there. */
function daemon(system: boolean): { fake: FakeDaemon; procedures: Procedures } {
  const strings: Record<number, string[]> = {
    7: ['/dev/sda', '/dev/sdb'],
    8: ['/dev/sda1', '/dev/sda2', '/dev/sda5', '/dev/sda6'],
    11: ['/dev/vg/root', '/dev/vg/data'],
    300: ['/dev/md1', '/dev/md12'],
    287: [],
    476: ['/dev/sdb', 'xfs', 'btrfsvol:/dev/sda1/home', 'btrfs'],
    480: system ? ['/dev/mapper/vg-root'] : [],
    500: ['/gone', '/dev/sdz1', '/', '/dev/mapper/vg-root', '/boot', '/dev/sda1'],
    501: ['/dev/mapper/vg-root', '/dev/sda1', '/dev/sdz1'],
    502: [],
  }
  const facts: Record<number, string> = { 483: 'linux', 484: 'debian', 485: 'deb', 486: 'apt', 487: 'unknown', 488: '' }
  const fake = new FakeDaemon((call) => {
    const { proc, args } = call
    const argument = args.length > 0 ? new XdrReader(args).string() : ''
    if (proc === 277) return reply(call, text(argument.replace('mapper/vg-', 'vg/')))
    if (proc === 198) return reply(call, text(TYPES[argument] ?? ''))
    if (proc === 253 || proc === 254) return refusal(call, '', 'none')
    if (proc === 73 && argument === '/dev/sdz1') return refusal(call, 'ENOENT', 'no such device')
    if (proc === 73 || proc === 47) return reply(call)
    if (proc === 67) return Buffer.concat([reply(call), chunk(Buffer.from(STATUS)), chunk(Buffer.alloc(0))])
    if (proc === 489 || proc === 490) return reply(call, new XdrWriter().uint32(12).bytes())
    if (strings[proc]) return reply(call, texts(strings[proc]))
    if (facts[proc] !== undefined) return reply(call, text(facts[proc]))
    return refusal(call, 'EINVAL', `procedure ${proc}`)
  })
  return { fake, procedures: new Procedures(new DaemonClient(fake.stream)) }
}

it('a system: what it uses, then the rest of the disk; volumes by the names that people use', async () => {
  const { fake, procedures } = daemon(true)
  const warnings: string[] = []
  const options = { applications: true, warn: (line: string) => void warnings.push(line), step: () => {} }
  const systems = await listSystems(procedures, options)
  expect(systems).toMatchObject([
    {
      ...{
        root: '/dev/vg/root',
        type: 'linux',
        distro: 'debian',
        productName: null,
        hostname: null,
        osinfo: 'debian12',
      },
      mountpoints: [
        { path: '/', device: '/dev/vg/root' },
        { path: '/boot', device: '/dev/sda1' },
        { path: '/gone', device: '/dev/sdz1' },
      ],
      applications: [{ name: 'bash', version: '5.2', release: '1' }],
    },
  ])
  expect(warnings).toEqual(['/dev/sdz1 cannot be mounted on /gone: no such device'])
  const mounts = fake.calls.filter(({ proc }) => proc === 73).map(({ args }) => new XdrReader(args).string())
  expect(mounts).toEqual(['/dev/mapper/vg-root', '/dev/sdz1', '/dev/sda1'])
  // Not: the disk with partitions, the extended partition, parts of a volume or a RAID, what is not there.
  expect((await listFileSystems(procedures, systems)).map(({ device, type }) => `${device} ${type}`)).toEqual([
    ...['/dev/md12 ext4', '/dev/sda1 ext4', '/dev/sda5 crypto_LUKS', '/dev/sdb xfs', '/dev/vg/data btrfs'],
    '/dev/vg/root ext4',
  ])
})

it('no system: what the daemon lists, and what it leaves out, as it does encrypted partitions', async () => {
  const { procedures } = daemon(false)
  const systems = await listSystems(procedures, { applications: true, warn: () => {}, step: () => {} })
  expect(systems).toEqual([])
  expect((await listFileSystems(procedures, systems)).map(({ device, type }) => `${device} ${type}`)).toEqual([
    ...['/dev/md12 ext4', '/dev/sda1 ext4', '/dev/sda5 crypto_LUKS', '/dev/sdb xfs', '/dev/vg/data btrfs'],
    ...['/dev/vg/root ext4', 'btrfsvol:/dev/sda1/home btrfs'],
  ])
})
