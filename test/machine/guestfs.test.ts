/**
 * Debian's unmodified libguestfs with its appliance on our device, started through vmchannel-qemu; then `vmchannel
 * inspect` beside virt-inspector. Needs the build. `npm run test:guestfs` does more: 100 MiB, q35, disks that are
 * broken. Here it is short: a boot of the appliance takes a quarter of a minute or more.
 */
import { createHash, randomBytes } from 'node:crypto'
import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  closeSync,
  createReadStream,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { command, tryCommand, type CommandResult } from '../../lab/command.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { repoRoot } from '../../lab/paths.ts'
import { until } from '../../lab/wait.ts'
import { sampleDisk, sampleRoot, writePartitionTable } from '../../lab/sample-disk.ts'
import { GuestfsLab } from '../../lab/guestfs.ts'
import { lookAtDisk } from '../../src/inspect/disk-file.ts'
import { driveArguments } from '../../src/inspect/drive.ts'
import { Inheritance } from '../../src/inspect/inheritance.ts'
import type { DiskReport } from '../../src/inspect/report.ts'
import { asVirtInspector, parseVirtInspector } from '../inspect/virt-inspector.ts'

const FULL = process.env['VMCHANNEL_GUESTFS'] === 'full'
const MIB = FULL ? 100 : 12
const AT_LENGTH = 'only npm run test:guestfs does it: another boot of the appliance'
const BOOT = 900_000 // seen to take five minutes where ten programs share two processors
const WAIT = 120_000
const FSTAB =
  '/dev/mapper/vg-root / ext4 defaults 0 1\n/dev/vg/home /home ext4 defaults 0 2\n/dev/vg/swap none swap sw 0 0\n'

/** What qemu-img makes, and with what. */
const FORMATS: readonly (readonly [format: string, how: readonly string[]])[] = [
  ...[['raw', []] as const, ['qcow2', []] as const, ['qcow2', ['-o', 'compat=0.10']] as const],
  ...[['qcow2', ['-o', 'extended_l2=on']] as const, ['qcow2', ['-c', '-o', 'compression_type=zstd']] as const],
  ...[['qcow2', ['-o', 'cluster_size=2M']] as const, ['qcow2', ['-o', 'cluster_size=512']] as const],
  ...[['vmdk', []] as const, ['vmdk', ['-o', 'subformat=streamOptimized']] as const],
  ...[['vhdx', []] as const, ['vdi', []] as const, ['vdi', ['-o', 'static=on']] as const, ['qed', []] as const],
  ['vpc', ['-o', 'force_size=on']],
]

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
        { device: '/dev/vg/home', type: 'ext4' },
        { device: '/dev/vg/root', type: 'ext4', label: 'system' },
        { device: '/dev/vg/swap', type: 'swap' },
      ])
      expect(report.systems[0]).toMatchObject({ hostname: 'volumes', distro: 'debian', root: '/dev/vg/root' })
      expect(report.systems[0]!.applications!.length).toBeGreaterThan(200)
      expect(await sha256(disk)).toBe(before)
    },
    BOOT,
  )

  it(
    'a raw disk with a partition, by the example',
    async ({ skip }) => {
      skip(!FULL, AT_LENGTH)
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

  it('every format that qemu-img writes is taken, and read by descriptor', async () => {
    const raw = join(lab.folder, 'formats.raw')
    writeFileSync(raw, Buffer.alloc(3 << 20, 0xa5))
    const inherited = new Inheritance()
    const words: string[] = []
    const commands: string[] = []
    for (const [at, [format, how]] of FORMATS.entries()) {
      const image = `${raw}.${at}`
      await command(join(lab.guestfs.bin, 'qemu-img'), ['convert', '-f', 'raw', '-O', format, ...how, raw, image])
      const disk = lookAtDisk(image)
      inherited.keep(disk.fd)
      expect([at, disk.format]).toEqual([at, format])
      words.push(...driveArguments(`disk${at}`, disk, inherited).slice(0, 2))
      commands.push(`qemu-io disk${at} "read -P 0xa5 0 3M"`)
    }
    const { path } = await ensureQemu()
    const machine = ['-machine', 'none', '-nodefaults', '-display', 'none', '-monitor', 'stdio']
    const log = join(lab.folder, 'formats.log')
    const out = openSync(log, 'w')
    spawnSync(path, [...machine, ...words, ...inherited.arguments], {
      input: [...commands, 'quit', ''].join('\n'),
      stdio: ['pipe', out, out, ...inherited.stdio],
    })
    closeSync(out)
    inherited.close()
    const said = readFileSync(log, 'latin1')
    expect(said).not.toMatch(/failed|Pattern verification|[Cc]ould not/)
    expect(said.match(/read 3145728\/3145728 bytes/g)?.length).toBe(FORMATS.length)
  })

  it('a qcow2 that QEMU does not open', async () => {
    const disk = join(lab.folder, 'broken.qcow2')
    await command(join(lab.guestfs.bin, 'qemu-img'), ['create', '-f', 'qcow2', disk, '64M'])
    const bytes = readFileSync(disk)
    bytes.writeUInt32BE(0, 36) // entries of the first table
    writeFileSync(disk, bytes)
    const { status, stderr } = await node([main, 'inspect', disk])
    expect(stderr).toMatch(/broken\.qcow2 cannot be opened: .*L1 table/)
    expect(status).toBe(14)
  })

  it(
    'nothing stays behind when the program is killed',
    async () => {
      const disk = join(lab.folder, 'killed.img')
      await sampleDisk(lab.guestfs, disk)
      const child = spawn(process.execPath, [main, 'inspect', disk], { env: { ...process.env, ...lab.env() } })
      try {
        // QEMU has the disk as a descriptor: what it knows by name is the device's socket.
        const mine = (): string[] => processesWith(lab.folder).filter((pid) => pid !== String(child.pid))
        await until(() => mine().length > 0, 'QEMU runs', WAIT)
        child.kill('SIGKILL')
        await until(() => mine().length === 0, 'QEMU has ended', WAIT)
        const folders = (): string[] => [
          ...readdirSync(join(lab.folder, 'state')),
          ...readdirSync(join(lab.folder, 'tmp')).filter((name) => name.startsWith('vmchannel-')),
        ]
        await until(() => folders().length === 0, 'the device process has ended', WAIT)
      } finally {
        child.kill('SIGKILL')
      }
    },
    BOOT,
  )

  it('a caller whose patience is over gets an error, and nothing stays behind', async () => {
    const disk = join(lab.folder, 'late.img')
    await sampleDisk(lab.guestfs, disk)
    const index = pathToFileURL(join(repoRoot(), 'dist/src/index.js')).href
    const program = [
      `import { inspectDisk } from ${JSON.stringify(index)}`,
      `await inspectDisk(${JSON.stringify(disk)}, { timeout: 2000 }).catch((error) => console.log(error.code))`,
    ]
    const { status, stdout, stderr } = await node(['--input-type=module', '-e', program.join('\n')])
    expect({ status, stdout: stdout.toString(), stderr }).toEqual({
      ...{ status: 0, stdout: 'ERR_VMCHANNEL_TIMEOUT\n', stderr: '' },
    })
    expect(processesWith(lab.folder)).toEqual([])
  })

  describe('at length', () => {
    beforeEach(({ skip }) => skip(!FULL, AT_LENGTH))

    const inspect = async (disk: string): Promise<CommandResult> => node([main, 'inspect', disk])

    it(
      'an encrypted partition',
      async () => {
        const disk = join(lab.folder, 'luks.img')
        await writePartitionTable(disk, 16)
        const header = Buffer.alloc(592)
        header.write('LUKS\xba\xbe', 'latin1')
        header.writeUInt16BE(1, 6)
        header.write('8c1b1a1e-2d0a-4c53-9d43-aa3f2c1f0f77', 168)
        write(disk, header, 2 ** 20)
        const { status, stderr } = await inspect(disk)
        expect(stderr).toMatch(/luks\.img: \/dev\/sda1 is encrypted\n.*cryptsetup/)
        expect(status).toBe(14)
      },
      BOOT,
    )

    it(
      'two disks of one guest, one for sectors of 4096 bytes; QEMU is nobody, with a filter of system calls',
      async () => {
        const [large, other] = [join(lab.folder, 'large.img'), join(lab.folder, 'other.vmdk')]
        await sampleDisk(lab.guestfs, large, { sectorSize: 4096, hostname: 'large' })
        await sampleDisk(lab.guestfs, `${other}.raw`, { hostname: 'other' })
        await command(join(lab.guestfs.bin, 'qemu-img'), ['convert', '-O', 'vmdk', `${other}.raw`, other])
        // Another user has to get there.
        for (const path of [lab.folder, join(lab.folder, 'tmp')]) chmodSync(path, 0o777)
        const answer = node([main, 'inspect', '--json', large, other])
        const qemu = (): string[] => processesWith('id=hd1').filter((pid) => /filename=/.test(commandLine(pid)))
        await until(() => qemu().some((pid) => commandLine(pid).includes('-kernel')), 'QEMU runs', WAIT)
        await until(() => qemu().some((pid) => status(pid, 'Seccomp') === '2'), 'QEMU has its filter', WAIT)
        if (process.getuid!() === 0)
          expect(new Set(qemu().map((pid) => status(pid, 'Uid')?.split('\t')[0]))).toEqual(new Set(['65534']))
        for (const pid of qemu()) expect(commandLine(pid)).not.toContain(other)
        const { status: code, stdout, stderr } = await answer
        expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
        const report = JSON.parse(stdout.toString()) as DiskReport
        expect(report.disks.map(({ format }) => format)).toEqual(['raw', 'vmdk'])
        expect(report.systems.map(({ root, hostname }) => [root, hostname])).toEqual([
          ['/dev/sda1', 'large'],
          ['/dev/sdb1', 'other'],
        ])
      },
      BOOT,
    )

    it(
      'a damaged file system',
      async () => {
        const disk = join(lab.folder, 'damaged.img')
        await sampleDisk(lab.guestfs, disk)
        write(disk, Buffer.alloc(512 << 10), 2 ** 20 + 2048)
        const { status, stderr } = await inspect(disk)
        expect(stderr).toMatch(/damaged\.img is damaged: ext4 on \/dev\/sda1 cannot be read: /)
        expect(status).toBe(14)
      },
      BOOT,
    )

    it(
      'bytes of no meaning',
      async () => {
        const disk = join(lab.folder, 'noise.img')
        writeFileSync(disk, randomBytes(4 << 20))
        const { status, stderr } = await inspect(disk)
        expect(stderr).toMatch(/noise\.img: (neither partitions nor a file system|no file system that is known)/)
        expect(status).toBe(14)
      },
      BOOT,
    )

    it(
      'data without a system, by a user who is not root',
      async (context) => {
        if (process.getuid!() !== 0) context.skip('run as root to try it as another user')
        const disk = join(lab.folder, 'pc-disk')
        const state = join(lab.folder, 'state-of-nobody')
        mkdirSync(state, { mode: 0o700 })
        chownSync(state, 65_534, 65_534)
        for (const path of [lab.folder, disk]) chmodSync(path, 0o755)
        const user = ['--reuid', '65534', '--regid', '65534', '--clear-groups', '--', process.execPath, main]
        const env = { ...lab.env(), VMCHANNEL_STATE_DIR: state, TMPDIR: '/tmp', HOME: '/nonexistent' }
        const { status, stdout, stderr } = await tryCommand('setpriv', [...user, 'inspect', disk], { env })
        expect(stderr.replaceAll(/^\.\. .*\n/gm, '')).toBe('')
        expect(stdout.toString()).toMatch(/\/dev\/sda +ext4 .*\n\nNo operating system was found on it\.\n$/)
        expect(status).toBe(0)
      },
      BOOT,
    )
  })
})

/** Processes that have a word in their command line. */
function processesWith(word: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(word)
    } catch {
      return false // it has ended
    }
  })
}

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return '' // it has ended
  }
}

/** A line of /proc/PID/status. */
function status(pid: string, name: string): string | undefined {
  try {
    return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  } catch {
    return undefined
  }
}

function write(file: string, bytes: Uint8Array, at: number): void {
  const fd = openSync(file, 'r+')
  writeSync(fd, bytes, 0, bytes.length, at)
  closeSync(fd)
}
