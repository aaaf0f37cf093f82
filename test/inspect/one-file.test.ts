/**
 * `inspect` opens one file. Images that name another one, in every way there is: none is taken; and where one is put
 * into the place of an image that was taken, QEMU reads what was checked. QEMU itself is the judge, the newest and 7.2:
 * told to open such an image by its name it does read the other file, else this test would show nothing.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureOldQemu } from '../../lab/fetch/old-qemu.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { until } from '../../lab/wait.ts'
import { VmchannelError } from '../../src/errors.ts'
import { lookAtDisk } from '../../src/inspect/disk-file.ts'
import { DISK_FORMATS, type DiskFormat } from '../../src/inspect/disk-formats.ts'
import { driveArguments } from '../../src/inspect/drive.ts'
import { Inheritance } from '../../src/inspect/inheritance.ts'
import { DISK_SIZE, evilDisks, qcow2, qed, vmdk, vmdkDescriptor, WHOLE, type EvilDisk } from '../support/disk-images.ts'

const dir = mkdtempSync(join(tmpdir(), 'vmchannel-evil-'))
const TIMEOUT = 120_000

interface Trap {
  evil: EvilDisk
  path: string
  /** 16 characters that only the other file has. */
  secret: string
  /** Whose name QEMU has open when it has followed. */
  other: string
}

/** One image of each kind, each with a secret of its own. */
const traps: Trap[] = evilDisks('', '').map(({ name }, at) => {
  const secret = `SECRET${String(at).padStart(10, '0')}`
  const [other, parent] = [join(dir, `${name}.other`), join(dir, `${name}.parent`)]
  writeFileSync(other, secret.repeat(DISK_SIZE / secret.length))
  writeFileSync(
    parent,
    vmdkDescriptor({ createType: 'monolithicFlat', extents: [`RW 2048 FLAT "${other}" 0`] }).padEnd(2048),
  )
  const evil = evilDisks(other, parent)[at]!
  const path = join(dir, name)
  writeFileSync(path, evil.bytes)
  return { evil, path, secret, other }
})

interface Qemu {
  name: string
  path: string
}
let qemus: Qemu[] = []
beforeAll(async () => {
  const [now, old] = [await ensureQemu(), await ensureOldQemu()]
  qemus = [now, old].map(({ path, version }) => ({ name: version, path }))
}, 600_000)
afterAll(() => rmSync(dir, { recursive: true, force: true }))

interface Asked {
  said: string
  files: string[]
}

/** What QEMU says to commands of its monitor, and the files that it has open after them. */
async function ask(qemu: Qemu, commands: readonly string[], inherited = new Inheritance()): Promise<Asked> {
  const machine = ['-machine', 'none', '-nodefaults', '-display', 'none', '-monitor', 'stdio']
  // A file: on a pipe, which it makes non-blocking, QEMU loses what does not fit.
  const log = join(dir, 'said')
  const out = openSync(log, 'w')
  const child = spawn(qemu.path, [...machine, ...inherited.arguments], {
    stdio: ['pipe', out, out, ...inherited.stdio],
  })
  closeSync(out)
  const said = (): string => readFileSync(log, 'latin1')
  const ended = once(child, 'exit')
  try {
    child.stdin!.on('error', () => {}).write([...commands, 'print /d 1111*1111', ''].join('\n'))
    // The sum stands in no command.
    await until(() => child.exitCode !== null || said().includes('1234321'), 'QEMU has done it all', TIMEOUT)
    const files = child.exitCode === null ? openFiles(child.pid!) : []
    child.stdin!.end('quit\n')
    await ended
    return { said: said(), files }
  } finally {
    child.kill('SIGKILL')
  }
}

function openFiles(pid: number): string[] {
  const names = readdirSync(`/proc/${pid}/fd`)
  return names.flatMap((name) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${name}`)]
    } catch {
      return [] // closed by now
    }
  })
}

const read = (id: string): string => `qemu-io ${id} "read -v 0 512"`

it('QEMU, given such an image by its name, reads the other file', { timeout: TIMEOUT }, async () => {
  for (const qemu of qemus) {
    const commands = traps.flatMap(({ path, evil }, at) => [
      `drive_add 0 file=${path},format=${evil.format},snapshot=on,if=none,id=evil${at}`,
      read(`evil${at}`),
    ])
    const { said, files } = await ask(qemu, commands)
    const shown = traps.filter(({ secret, other }) => said.includes(secret) && files.includes(other))
    const expected = traps.filter(({ evil }) => evil.followed)
    expect([qemu.name, shown.map(({ evil }) => evil.name)]).toEqual([qemu.name, expected.map(({ evil }) => evil.name)])
  }
})

describe('none is taken', () => {
  it.each(traps.map((trap) => [trap.evil.name, trap] as const))('%s', (_, { evil, path, other }) => {
    // Nor where the format is said, whichever; as raw alone it is bytes like any others.
    for (const given of [undefined, ...DISK_FORMATS.filter((format) => format !== 'raw')]) {
      let found: unknown
      try {
        closeSync(lookAtDisk(path, given).fd)
      } catch (error) {
        found = error
      }
      expect(found).toBeInstanceOf(VmchannelError)
      expect(found).toMatchObject({ code: 'ERR_VMCHANNEL_DISK', hint: expect.any(String) as string })
      expect((found as Error).message).toContain(path)
      // It says what was found, not only that something was.
      if (given === undefined) expect((found as Error).message).toMatch(new RegExp(evil.format, 'i'))
      expect((found as Error).message).not.toContain(other)
    }
  })
})

const BEFORE: Readonly<Partial<Record<DiskFormat, () => Buffer>>> = { qcow2, vmdk, qed }

it(
  'an image that is changed after it was looked at: QEMU opens it as it was, and nothing else',
  { timeout: TIMEOUT },
  async () => {
    for (const qemu of qemus) {
      const inherited = new Inheritance()
      const disks = traps.flatMap((trap, at) => {
        const make = BEFORE[trap.evil.format]
        if (!make) return []
        const path = join(dir, `changed-${at}`)
        writeFileSync(path, make())
        const disk = lookAtDisk(path)
        inherited.keep(disk.fd)
        writeFileSync(path, trap.evil.bytes) // the same file, by now another image
        return [{ ...trap, id: `disk${at}`, drive: driveArguments(`disk${at}`, disk, inherited)[1]! }]
      })
      expect(disks.length).toBeGreaterThan(15)
      const commands = disks.flatMap(({ id, drive }) => [`drive_add 0 ${drive}`, read(id)])
      const { said, files } = await ask(qemu, commands, inherited)
      inherited.close()
      expect(said).toContain('1234321')
      const seen = disks.filter(({ secret, other }) => said.includes(secret) || files.includes(other))
      expect([qemu.name, seen.map(({ evil }) => evil.name)]).toEqual([qemu.name, []])
      // They are open, by the descriptors alone, and what was inside is what is read.
      expect(files.filter((file) => file.startsWith(join(dir, 'changed-'))).length).toBeGreaterThan(15)
      expect(said.match(/512\/512 bytes at offset 0/g)?.length).toBeGreaterThan(15)
    }
  },
)

it('whole images are read through descriptors, the beginning as it was checked', { timeout: TIMEOUT }, async () => {
  const own = Object.entries(WHOLE).filter(([name]) => name.startsWith('qcow2') || name.startsWith('vmdk'))
  for (const qemu of qemus) {
    const inherited = new Inheritance()
    const commands = own.flatMap(([, make], at) => {
      const path = join(dir, `whole-${at}`)
      writeFileSync(path, make())
      const disk = lookAtDisk(path)
      inherited.keep(disk.fd)
      const [, drive = ''] = driveArguments(`whole${at}`, disk, inherited)
      return [`drive_add 0 ${drive}`, read(`whole${at}`)]
    })
    const { said } = await ask(qemu, commands, inherited)
    inherited.close()
    expect([qemu.name, said.match(/512\/512 bytes at offset 0/g)?.length]).toEqual([qemu.name, own.length])
    expect(said.match(/own\.data/g)?.length).toBe(2)
  }
})
