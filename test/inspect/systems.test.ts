/** Which devices end up in the list of file systems, by a daemon that plays disks. */
import { expect, it } from 'vitest'
import { BlockDevices } from '../../src/inspect/block-devices.ts'
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

interface Played {
  fake: FakeDaemon
  procedures: Procedures
  devices: BlockDevices
}

/**
 * A Debian on /dev/mapper/vg-root, with a /boot, and a /gone that is not there. `tags`: what blkid says, where it does.
 */
function daemon(system: boolean, tags: Record<string, string[]> = {}): Played {
  const strings: Record<number, string[]> = {
    7: ['/dev/sda', '/dev/sdb'],
    8: ['/dev/sda1', '/dev/sda2', '/dev/sda5', '/dev/sda6'],
    11: ['/dev/vg/root', '/dev/vg/data'],
    300: ['/dev/md1', '/dev/md12'],
    380: [],
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
    if (proc === 303 && tags[argument]) return reply(call, texts(tags[argument]))
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
  const procedures = new Procedures(new DaemonClient(fake.stream))
  return { fake, procedures, devices: new BlockDevices(procedures) }
}

it('a system: what it uses, then the rest of the disk; volumes by the names that people use', async () => {
  const { fake, procedures, devices } = daemon(true)
  const warnings: string[] = []
  const options = { applications: true, warn: (line: string) => void warnings.push(line), step: () => {} }
  const systems = await listSystems(procedures, devices, options)
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
  expect((await listFileSystems(procedures, devices, systems)).map(({ device, type }) => `${device} ${type}`)).toEqual([
    ...['/dev/md12 ext4', '/dev/sda1 ext4', '/dev/sda5 crypto_LUKS', '/dev/sdb xfs', '/dev/vg/data btrfs'],
    '/dev/vg/root ext4',
  ])
})

it('no system: what the daemon lists, and what it leaves out, as it does encrypted partitions', async () => {
  const { procedures, devices } = daemon(false)
  const systems = await listSystems(procedures, devices, { applications: true, warn: () => {}, step: () => {} })
  expect(systems).toEqual([])
  expect((await listFileSystems(procedures, devices, systems)).map(({ device, type }) => `${device} ${type}`)).toEqual([
    ...['/dev/md12 ext4', '/dev/sda1 ext4', '/dev/sda5 crypto_LUKS', '/dev/sdb xfs', '/dev/vg/data btrfs'],
    ...['/dev/vg/root ext4', 'btrfsvol:/dev/sda1/home btrfs'],
  ])
})

const NO_STEP = { applications: false, warn: () => {}, step: () => {} }

it('one look at a device tells its type, label and number; not where they are escaped, or are told elsewhere', async () => {
  const { fake, procedures, devices } = daemon(true, {
    '/dev/mapper/vg-root': ['TYPE', 'ext4', 'LABEL', 'root', 'UUID', '1-2', 'BLOCK_SIZE', '4096'],
    '/dev/sda1': ['TYPE', 'vfat', 'LABEL', 'a\\ b', 'UUID', '3'],
    '/dev/sda5': ['TYPE', 'crypto_LUKS', 'UUID', '4'],
    '/dev/sda6': ['TYPE', 'LVM2_member', 'UUID', '5', 'VERSION', 'LVM2\\ 001'],
    '/dev/vg/data': ['TYPE', 'btrfs', 'LABEL', 'not this one'],
  })
  const systems = await listSystems(procedures, devices, NO_STEP)
  const found = await listFileSystems(procedures, devices, systems)
  expect(found).toContainEqual({ device: '/dev/vg/root', type: 'ext4', label: 'root', uuid: '1-2' })
  expect(found).toContainEqual({ device: '/dev/sda5', type: 'crypto_LUKS', label: null, uuid: '4' })
  expect(found).toContainEqual({ device: '/dev/sda1', type: 'vfat', label: null, uuid: null })
  expect(found).toContainEqual({ device: '/dev/vg/data', type: 'btrfs', label: null, uuid: null })
  const asked = (...procs: number[]): string[] =>
    fake.calls.flatMap(({ proc, args }) => (procs.includes(proc) ? [new XdrReader(args).string()] : []))
  for (const device of ['/dev/mapper/vg-root', '/dev/sda5', '/dev/sda6']) {
    expect(asked(198, 253, 254), device).not.toContain(device)
  }
  expect(asked(253)).toContain('/dev/sda1')
  // A volume's name costs as much as the rest: once.
  expect(asked(277)).toEqual(['/dev/mapper/vg-root'])
})

it('volumes are not looked for where nothing is a part of one', async () => {
  const before = TYPES['/dev/sda6']!
  TYPES['/dev/sda6'] = 'swap'
  try {
    const { fake, procedures, devices } = daemon(true)
    await listFileSystems(procedures, devices, await listSystems(procedures, devices, NO_STEP))
    expect(fake.calls.map(({ proc }) => proc)).not.toContain(11)
  } finally {
    TYPES['/dev/sda6'] = before
  }
})

it('parts of a volume group or a RAID are no file systems, and are remembered', async () => {
  const { devices } = daemon(true, { '/dev/sda6': ['TYPE', 'LVM2_member'] })
  const { found } = await devices.others(new Set())
  expect([...found.keys()]).not.toContain('/dev/sda6')
  expect(devices.members).toEqual(['/dev/sda6', '/dev/md1'])
})
