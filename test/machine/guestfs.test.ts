/**
 * Debian's unmodified libguestfs with its appliance on our device, started through vmchannel-qemu. Needs the build.
 * Then `vmchannel inspect` beside virt-inspector. `npm run test:guestfs` does the same with 100 MiB and on q35 as well; in CI each boot of the appliance counts.
 */
import { createHash, randomBytes } from 'node:crypto'
import { chmodSync, createReadStream, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { command, tryCommand, type CommandResult } from '../../lab/command.ts'
import { repoRoot } from '../../lab/paths.ts'
import { sampleDisk, sampleRoot } from '../../lab/sample-disk.ts'
import { GuestfsLab } from '../../lab/guestfs.ts'
import type { DiskReport } from '../../src/inspect/report.ts'
import { asVirtInspector, parseVirtInspector } from '../inspect/virt-inspector.ts'

const FULL = process.env['VMCHANNEL_GUESTFS'] === 'full'
const MIB = FULL ? 100 : 12
const BOOT = 300_000
const FSTAB =
  '/dev/mapper/vg-root / ext4 defaults 0 1\n/dev/vg/home /home ext4 defaults 0 2\n/dev/vg/swap none swap sw 0 0\n'

let lab: GuestfsLab
beforeAll(async () => {
  lab = await GuestfsLab.open()
})
afterAll(() => lab?.close())

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer)
  return hash.digest('hex')
}

describe.each(FULL ? (['pc', 'q35'] as const) : (['pc'] as const))('libguestfs on machine %s', (machine) => {
  it(
    'libguestfs-test-tool is content',
    async () => {
      const { status, stdout, stderr } = await lab.run('libguestfs-test-tool', [], {
        machine,
        env: { VMCHANNEL_LOG: 'info' },
      })
      const all = `${stdout.toString()}${stderr}`
      expect(`${stderr.slice(-3000)}${stdout.toString().slice(-300)}`).toContain('===== TEST FINISHED OK =====')
      expect(status).toBe(0)
      // The probes got answers, and the channel is ours.
      expect(all).toMatch(/qemu version: 1[01]\.\d/)
      expect(all).toMatch(/VMM attached/)
    },
    BOOT,
  )

  it(
    'files and archives go in and out unchanged; a cancelled transfer leaves the handle usable',
    async () => {
      const at = (name: string): string => join(lab.folder, `${machine}-${name}`)
      writeFileSync(at('disk'), '')
      truncateSync(at('disk'), (3 * MIB + 64) * 2 ** 20)
      mkdirSync(at('tree'))
      for (const name of ['one', 'two']) writeFileSync(join(at('tree'), name), randomBytes((MIB / 2) * 2 ** 20))
      writeFileSync(at('data'), randomBytes(MIB * 2 ** 20))
      await command('tar', ['cf', at('in.tar'), '-C', at('tree'), '.'])
      await sampleRoot(lab.guestfs, at('root'), { hostname: 'volumes', fstab: FSTAB })
      await command('tar', ['cf', at('root.tar'), '--numeric-owner', '-C', at('root'), '.'])
      writeFileSync(at('volumes'), '')
      truncateSync(at('volumes'), 112 * 2 ** 20)
      const script = [
        `add-drive ${at('disk')} format:raw`,
        `add-drive ${at('volumes')} format:raw`,
        'run',
        'mkfs ext4 /dev/sda',
        'mount /dev/sda /',
        `upload ${at('data')} /data`,
        'checksum sha256 /data',
        `download /data ${at('back')}`,
        // The library cannot read on: it cancels what it sends. It cannot write on: it asks the daemon to stop.
        '-upload /proc/self/mem /cancelled',
        'echo after-upload',
        '-download /data /dev/full',
        'ping-daemon',
        'echo after-download',
        'mkdir /in',
        `tar-in ${at('in.tar')} /in`,
        'checksum sha256 /in/one',
        'checksum sha256 /in/two',
        `tar-out /in ${at('out.tar')}`,
        'umount-all',
        ...[
          'pvcreate /dev/sdb',
          'vgcreate vg /dev/sdb',
          'lvcreate root vg 64',
          'lvcreate home vg 16',
          'lvcreate swap vg 8',
        ],
        ...[
          'mkfs ext4 /dev/vg/root label:system',
          'mkfs ext4 /dev/vg/home',
          'mkswap /dev/vg/swap',
          'mount /dev/vg/root /',
        ],
        `tar-in ${at('root.tar')} /`,
        'umount-all',
        'shutdown',
      ]
      const { status, stdout, stderr } = await lab.run('guestfish', [], { machine, input: `${script.join('\n')}\n` })
      expect({ status, stderr }).toMatchObject({ status: 0 })
      const data = await sha256(at('data'))
      const [one, two] = await Promise.all(['one', 'two'].map((name) => sha256(join(at('tree'), name))))
      const lines = stdout.toString().trim().split('\n')
      expect(lines).toEqual([data, 'after-upload', 'after-download', one, two])
      expect(stderr).toMatch(/read: \/proc\/self\/mem: Input\/output error/)
      expect(stderr).toMatch(/\/dev\/full: write: No space left on device/)
      expect(await sha256(at('back'))).toBe(data)
      mkdirSync(at('out'))
      await command('tar', ['xf', at('out.tar'), '-C', at('out')])
      expect(readdirSync(at('out')).toSorted()).toEqual(['one', 'two'])
      for (const name of ['one', 'two']) {
        expect(readFileSync(join(at('out'), name)).equals(readFileSync(join(at('tree'), name)))).toBe(true)
      }
    },
    BOOT,
  )
})

describe('inspection', () => {
  const main = join(repoRoot(), 'dist/src/cli/main.js')
  const node = (words: string[]): Promise<CommandResult> => tryCommand(process.execPath, words, { env: lab.env() })

  it(
    'a qcow2 disk with LVM: all that virt-inspector says, and file systems',
    async () => {
      const raw = join(lab.folder, 'pc-volumes')
      const disk = join(lab.folder, 'volumes,1.qcow2')
      await command(join(lab.guestfs.bin, 'qemu-img'), ['convert', '-f', 'raw', '-O', 'qcow2', raw, disk])
      chmodSync(disk, 0o444)
      const before = await sha256(disk)
      const reference = await lab.run('virt-inspector', ['--no-icon', '--format=qcow2', '-a', disk])
      expect(reference.stderr).toBe('')
      const { status, stdout, stderr } = await node([main, 'inspect', '--json', disk])
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
      const report = JSON.parse(stdout.toString()) as DiskReport
      expect(report.systems.map(asVirtInspector)).toEqual(parseVirtInspector(reference.stdout.toString()))
      expect(report).toMatchObject({ disk, format: 'qcow2', warnings: [] })
      expect(report.filesystems).toMatchObject([
        { device: '/dev/vg/home', type: 'ext4', size: 16 * 2 ** 20 },
        { device: '/dev/vg/root', type: 'ext4', label: 'system', size: 64 * 2 ** 20 },
        { device: '/dev/vg/swap', type: 'swap', size: 8 * 2 ** 20 },
      ])
      expect(report.systems[0]).toMatchObject({ hostname: 'volumes', distro: 'debian', root: '/dev/vg/root' })
      expect(report.systems[0]!.applications!.length).toBeGreaterThan(200)
      expect(await sha256(disk)).toBe(before)
    },
    BOOT,
  )

  it(
    'a raw disk with a partition, by the example',
    async () => {
      const disk = join(lab.folder, 'sample.img')
      await sampleDisk(lab.guestfs, disk)
      const before = await sha256(disk)
      const { status, stdout, stderr } = await node([join(repoRoot(), 'examples/inspect-disk.mjs'), disk])
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
      expect(stdout.toString()).toMatch(
        /^sample runs debian 12\.\d+, with \d+ packages; the last in its list is zstd\n$/,
      )
      expect(await sha256(disk)).toBe(before)
    },
    BOOT,
  )
})
