/** The lab itself, proved with QEMU's own device. */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ensureKernel, type KernelSeries } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { Pattern, patternSha256 } from '../../lab/pattern.ts'
import { startVmtest, vmtest } from '../../lab/vmtest.ts'

const LEN = 8 << 20

const device = (folder: string): string[] =>
  [
    '-device virtio-serial-pci',
    `-chardev socket,id=c0,path=${join(folder, 'port')},server=on,wait=off`,
    '-device virtserialport,chardev=c0,name=org.example.0',
  ].flatMap((pair) => pair.split(' '))

async function boot(series: KernelSeries): Promise<Machine> {
  const [qemu, kernel] = [await ensureQemu(), await ensureKernel(series)]
  return Machine.boot({ qemu: qemu.path, kernel, args: device })
}

async function portOf(machine: Machine): Promise<{ path: string; socket: Socket }> {
  const name = await machine.sh('grep -l org.example.0 /sys/class/virtio-ports/*/name')
  const socket = connect(join(machine.folder, 'port'))
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  return { path: `/dev/${name.split('/')[4]}`, socket }
}

describe.each<KernelSeries>(['6.1', '7.x'])('kernel %s', (series) => {
  let machine: Machine
  let port: { path: string; socket: Socket }
  beforeAll(async () => {
    machine = await boot(series)
    port = await portOf(machine)
  })
  afterAll(async () => {
    port?.socket.destroy()
    await machine?.close()
    expect(existsSync(machine.folder)).toBe(false)
  })

  test('8 MiB from the host arrive in the guest', async () => {
    const sink = await startVmtest(machine, 'sink', [port.path, LEN])
    port.socket.write(new Pattern(3).take(LEN))
    expect(await sink.result()).toMatchObject({ bytes: LEN, sha256: patternSha256(LEN, 3), eof: false })
  })

  test('8 MiB from the guest arrive at the host', async () => {
    const hash = createHash('sha256')
    let got = 0
    const all = new Promise<void>((resolve) => {
      port.socket.on('data', (chunk: Buffer) => {
        hash.update(chunk)
        got += chunk.length
        if (got >= LEN) resolve()
      })
    })
    const sent = await vmtest(machine, 'source', [port.path, LEN, 32768, 5])
    await all
    port.socket.removeAllListeners('data')
    expect(sent).toMatchObject({ bytes: LEN, sha256: patternSha256(LEN, 5) })
    expect(got).toBe(LEN)
    expect(hash.digest('hex')).toBe(patternSha256(LEN, 5))
  })

  test('round trips, and the file operations one by one', async () => {
    port.socket.on('data', (chunk: Buffer) => port.socket.write(chunk))
    expect(await vmtest(machine, 'ping', [port.path, 20, 64])).toMatchObject({ count: 20, size: 64, wrong: 0 })
    port.socket.removeAllListeners('data')
    expect(await vmtest(machine, 'open2', [port.path])).toMatchObject({ second: false, errno: 'EBUSY' })
    expect(await vmtest(machine, 'storm', [port.path, 50])).toMatchObject({ count: 50, failed: 0 })
    expect((await vmtest(machine, 'poll', [port.path, 0])).revents).toEqual(['OUT'])
    const sigio = await startVmtest(machine, 'sigio', [port.path, 5000])
    port.socket.write('x')
    expect(await sigio.result()).toMatchObject({ sigio: true, revents: ['IN', 'OUT'] })
  })
  test('splice, vmsplice and a writer that is told to wait', async () => {
    const hash = createHash('sha256')
    let got = 0
    port.socket.on('data', (chunk: Buffer) => {
      hash.update(chunk)
      got += chunk.length
    })
    await machine.sh(`: >/tmp/file; vmtest source /tmp/file 1m 64k 9`)
    expect(await vmtest(machine, 'splice', [port.path, '/tmp/file', '1m'])).toMatchObject({ bytes: 1 << 20 })
    const sent = await vmtest(machine, 'vmsplice', [port.path, 1_000_003, '128k', 4])
    expect(sent).toMatchObject({ bytes: 1_000_003, sha256: patternSha256(1_000_003, 4) })
    await expect.poll(() => got).toBe((1 << 20) + 1_000_003)
    const wanted = Buffer.concat([new Pattern(9).take(1 << 20), new Pattern(4).take(1_000_003)])
    expect(hash.digest('hex')).toBe(createHash('sha256').update(wanted).digest('hex'))

    port.socket.removeAllListeners('data').pause()
    const full = await vmtest(machine, 'nonblock', [port.path, 32768])
    expect(full).toMatchObject({ read: -1, read_errno: 'EAGAIN', write_errno: 'EAGAIN', revents: [] })
    expect(full.bytes).toBeGreaterThan(0)
    expect(full.bytes).toBeLessThan(64 << 20)
    port.socket.resume()
    await expect.poll(async () => (await vmtest(machine, 'poll', [port.path, 0])).revents).toEqual(['OUT'])
    expect(await vmtest(machine, 'lseek', [port.path])).toEqual({ lseek: 'ESPIPE', pread: 'ESPIPE' })
  })

  test('echo in the guest, and a device that is not there', async () => {
    let back = 0
    port.socket.on('data', (chunk: Buffer) => (back += chunk.length))
    const echo = await startVmtest(machine, 'echo', [port.path, 100_000])
    port.socket.write(new Pattern(1).take(100_000))
    expect(await echo.result()).toMatchObject({ bytes: 100_000 })
    await expect.poll(() => back).toBe(100_000)
    const hold = await startVmtest(machine, 'hold', [port.path, 0])
    await expect(vmtest(machine, 'storm', [port.path, 3])).resolves.toMatchObject({ failed: 3, errno: 'EBUSY' })
    hold.job.kill()
    expect((await hold.job.wait()).status).toBe(143)
    await expect(vmtest(machine, 'sink', ['/dev/nothing', 1])).rejects.toThrow(/ENOENT.*open \/dev\/nothing/)
    await expect(startVmtest(machine, 'hold', ['/dev/nothing', 1])).rejects.toThrow(/ENOENT/)
  })
})
