/** What the wrapper may look at before QEMU has it, descriptors that QEMU must find open, and names of VMs. */
import { spawnSync } from 'node:child_process'
import { writeFileSync, writeSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { vmNames } from '../../src/cli/qemu-names.ts'
import { closeFd } from '../../src/ffi/libc.ts'
import { isNodes } from '../../src/ffi/exec.ts'
import { makePipe } from '../../src/ffi/pipe.ts'
import { Bench, collect, DROP_IN, until } from './run.ts'

let bench: Bench
beforeEach(() => {
  bench = new Bench()
})
afterEach(() => bench.close())

const CONFIG = '[device "s"]\n  driver = "virtio-serial-pci"\n[name]\n  guest = "of the file"\n'
const own = (script: string): Record<string, string> => ({
  VMCHANNEL_QEMU: bench.fakeQemu({ script }),
  HOME: bench.folder,
})
const SERIAL = ['-m', '128M', '-virtioserial', 'null']

/** The wrapper with a pipe as its descriptors 4 and 5, both of them ends for reading. */
async function withPipe(args: readonly string[], text: string, script: string) {
  const pipe = makePipe()
  try {
    writeSync(pipe.write, text)
    closeFd(pipe.write)
    const stdio = ['ignore', 'pipe', 'pipe', 'ignore', pipe.read, pipe.read] as const
    return await collect(bench.start(args, { program: DROP_IN, env: own(script), stdio: [...stdio] }))
  } finally {
    closeFd(pipe.read)
  }
}

describe('-readconfig', () => {
  it.each([['/dev/fd/4'], ['/proc/self/fd/4']])('of a pipe (%s) is left for QEMU, and that is said', async (path) => {
    const { status, stdout, stderr } = await withPipe([...SERIAL, '-readconfig', path], CONFIG, `cat '${path}'`)
    expect({ status, stdout }).toEqual({ status: 0, stdout: CONFIG })
    expect(stderr).toContain(`-readconfig ${path} is no regular file, which QEMU alone can read`)
  })

  it('of a fifo is left for QEMU: its writer is not woken twice', async () => {
    const fifo = bench.path('fifo')
    expect(spawnSync('mkfifo', [fifo]).status).toBe(0)
    const script = `printf '%s' '${CONFIG}' > '${fifo}' & cat '${fifo}'`
    const { status, stdout } = await bench.run([...SERIAL, '-readconfig', fifo], { program: DROP_IN, env: own(script) })
    expect({ status, stdout }).toEqual({ status: 0, stdout: CONFIG })
  })

  it('of a regular file is read, and one that is missing is for QEMU to say', async () => {
    writeFileSync(bench.path('file'), CONFIG)
    const run = (path: string) =>
      bench.run(['qemu', '--dry-run', '--json', ...SERIAL, '-readconfig', path], { env: own('') })
    const plan = JSON.parse((await run(bench.path('file'))).stdout) as { devices: object[]; warnings: string[] }
    expect(plan.devices).toMatchObject([{ vm: 'of-the-file' }])
    expect(plan.warnings).toEqual([expect.stringContaining('it comes from')])
    expect(JSON.parse((await run(bench.path('none'))).stdout)).toMatchObject({ warnings: [] })
  })
})

describe('inherited descriptors', () => {
  it('a pipe under two numbers is open in QEMU under both', async () => {
    const { stdout } = await withPipe(['-m', '1G'], 'twelve bytes', 'head -c 6 <&4; cat <&5')
    expect(stdout).toBe('twelve bytes')
  })

  it("Node's own are told by what they are", () => {
    const pipe = (fd: number, end: number, more = 0o2000000) => ({ fd, target: 'pipe:[1]', flags: end | more })
    const whole = [pipe(5, 0), pipe(6, 1)]
    for (const end of whole) expect(isNodes(end, whole)).toBe(true)
    for (const all of [
      [pipe(5, 0)],
      [pipe(5, 0), pipe(6, 0)],
      [pipe(5, 1), pipe(6, 1)],
      [pipe(5, 0), pipe(6, 1), pipe(7, 0)],
      [pipe(5, 0, 0), pipe(63, 1, 0)],
    ])
      for (const end of all) expect(isNodes(end, all), JSON.stringify(all)).toBe(false)
    const event = (kind: string, flags = 0o2000002) => isNodes({ fd: 5, target: `anon_inode:[${kind}]`, flags }, [])
    expect(['eventpoll', 'eventfd', 'io_uring'].map((kind) => event(kind))).toEqual([true, true, true])
    expect(['bpf-map', 'kvm-vm', 'vfio-device', 'userfaultfd'].map((kind) => event(kind))).toEqual([
      ...[false, false, false, false],
    ])
    expect(event('eventfd', 2)).toBe(false)
  })
})

describe('names of VMs', () => {
  const names = (words: readonly string[], ids = ['a']) => {
    const more = ids.flatMap((id) => [
      ...['-device', `virtio-serial-pci,id=${id}`, '-chardev', `null,id=c-${id}`],
      ...['-device', `virtserialport,bus=${id}.0,chardev=c-${id}`],
    ])
    return bench
      .run(['qemu', '--dry-run', '--json', '-m', '1G', ...more, ...words], { env: own('') })
      .then(({ stdout }) => (JSON.parse(stdout) as { devices: { vm: string }[] }).devices.map(({ vm }) => vm))
  }

  it.each([
    [['-name', 'foo'], 'foo'],
    [['--name', 'foo,process=p'], 'foo'],
    [['-name', 'guest=foo'], 'foo'],
    [['-name', 'debug-threads=on,guest=foo'], 'foo'],
    [['-name', 'foo', '-name', 'debug-threads=on'], 'foo'],
    [['-name', 'foo', '-name', 'bar'], 'bar'],
    [['-name', 'a,,b'], 'a-b'],
  ])('%j: %s', async (words, expected) => {
    expect(await names(words)).toEqual([expected])
  })

  it('without one, or with one that has no letter: after QEMU', async () => {
    for (const words of [[], ['-name', ''], ['-name', '..'], ['-name', 'debug-threads=on']])
      expect(await names(words)).toEqual([expect.stringMatching(/^qemu-\d+$/)])
  })

  it('long ones are cut and told apart, and fit into the configuration and a socket’s path', () => {
    const long = 'x'.repeat(40)
    const found = vmNames(
      [{ id: 'a' }, { id: 'b'.repeat(40) }, { id: `${'b'.repeat(40)}c` }, { id: 'b c' }, { id: 'b-c' }],
      long,
    )
    expect(new Set(found).size).toBe(5)
    for (const name of found) expect(name).toMatch(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,47}$/)
    expect(vmNames([{ id: 'a' }], long)).not.toEqual(vmNames([{ id: 'a' }], `${long}y`))
    expect(vmNames([{ id: 'a' }, { id: 'com0' }], 'web')).toEqual(['web', 'web.com0'])
  })

  it('such a run starts', async () => {
    const args = ['-m', '128M', '-name', `guest=${'x'.repeat(40)}`]
    for (const id of ['a', 'b'.repeat(40)])
      args.push('-device', `virtio-serial-pci,id=${id}`, '-chardev', `null,id=c${id}`, ...portOf(id))
    const { status, stderr } = await bench.run(args, { program: DROP_IN, env: own('') })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    await until('no device process is left', async () => (await bench.run(['port', 'list'])).status === 5)
  })
})

function portOf(id: string): string[] {
  return ['-device', `virtserialport,bus=${id}.0,chardev=c${id}`]
}
