/**
 * Debian's unmodified libguestfs with its appliance on our device, started through vmchannel-qemu. Needs the build.
 * `npm run test:guestfs` does the same with 100 MiB and on q35 as well; in CI each boot of the appliance counts.
 */
import { createHash, randomBytes } from 'node:crypto'
import { createReadStream, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { command } from '../../lab/command.ts'
import { GuestfsLab } from '../../lab/guestfs.ts'

const FULL = process.env['VMCHANNEL_GUESTFS'] === 'full'
const MIB = FULL ? 100 : 12
const BOOT = 300_000

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
      const script = [
        `add-drive ${at('disk')} format:raw`,
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
