/** The library with a stock guest: streams both ways, back-pressure, hot-plug, events. Needs the build. */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Machine } from '../../lab/machine.ts'
import { startVmtest, vmtest } from '../../lab/vmtest.ts'
import { ControlClient } from '../../src/client/control-client.ts'
import { connect, createDevice, openDevice, type Device, type PortStream } from '../../src/index.ts'
import { cpuOf, statusOf, until } from '../daemon/device.ts'
import { TempDir } from '../daemon/temp-dir.ts'
import { boot } from './boot.ts'

describe('a program, a device, a guest', () => {
  const temp = new TempDir()
  const events: string[] = []
  let device: Device
  let port: PortStream
  let machine: Machine

  beforeAll(async () => {
    device = await createDevice({ name: 'guest-test', keeper: true })
    for (const name of ['vmm-attached', 'vmm-detached', 'driver-started', 'driver-reset'] as const)
      device.on(name, () => events.push(name))
    port = await device.addPort({ name: 'org.example.0' })
    const started = device.waitForDriver({ timeout: 60_000 })
    machine = await boot(device)
    await started
  })
  afterAll(async () => {
    await machine?.close()
    await device?.close()
    temp.remove()
  })

  const hello = async (): Promise<ControlClient['hello']> => {
    const client = await ControlClient.connect(device.controlSocket)
    client.close()
    return client.hello
  }

  it('knows that the guest runs', () => {
    expect(events).toContain('vmm-attached')
    expect(events.at(-1)).toBe('driver-started')
    expect([device.attached, device.started, device.problem]).toEqual([true, true, null])
  })

  it('reads what the guest writes, writes what the guest reads', async () => {
    const line = once(port, 'data')
    await machine.sh('echo hello > /dev/vport0p1')
    expect(String((await line)[0])).toBe('hello\n')
    port.pause()
    const job = machine.spawn('head -n1 < /dev/vport0p1')
    port.write('from the host\n')
    expect((await job.wait()).output).toBe('from the host\n')
  })

  it('tells when the guest opens and closes the port', async () => {
    await until(() => !port.guestOpen)
    await expect(port.waitForGuest({ timeout: 50 })).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_TIMEOUT' })
    await expect(port.waitForGuest({ signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_ABORTED',
    })
    const seen: string[] = []
    port.on('guest-open', () => seen.push('open')).on('guest-close', () => seen.push('close'))
    const open = port.waitForGuest({ timeout: 10_000 })
    const held = await startVmtest(machine, 'hold', ['/dev/vport0p1', 200])
    await open
    await port.waitForGuest()
    await held.result()
    await until(() => seen.length === 2)
    expect(seen).toEqual(['open', 'close'])
    expect((await port.stats()).counters.guestOpens).toBeGreaterThanOrEqual(3)
  })

  it('16 MiB each way, intact', async () => {
    const size = 16 << 20
    const hash = createHash('sha256')
    const read = (async () => {
      let left = size
      for await (const chunk of port.iterator({ destroyOnReturn: false })) {
        hash.update(chunk as Buffer)
        left -= (chunk as Buffer).length
        if (left === 0) break
      }
    })()
    const source = await vmtest(machine, 'source', ['/dev/vport0p1', size, 32768], 60_000)
    await read
    expect(hash.digest('hex')).toBe(source.sha256)

    const data = randomBytes(size)
    const sink = await startVmtest(machine, 'sink', ['/dev/vport0p1', size])
    await pipeline(Readable.from(slices(data, 100_000)), port, { end: false })
    const result = await sink.result(60_000)
    expect(result.sha256).toBe(createHash('sha256').update(data).digest('hex'))
  })

  it('outlives its device process, stream and all', async () => {
    const size = 8 << 20
    const hash = createHash('sha256')
    let got = 0
    const take = (chunk: Buffer): void => {
      hash.update(chunk)
      got += chunk.length
    }
    port.on('data', take)
    events.length = 0
    const restarted = once(device, 'restarted')
    const source = vmtest(machine, 'source', ['/dev/vport0p1', size, 32768], 60_000)
    await until(() => got > 1 << 20)
    process.kill((await hello()).devicePid!, 'SIGKILL')
    // Asked before anybody has noticed, and while there is nobody: both are answered by the successor.
    const asked = Promise.all([device.ports(), port.stats()])
    expect(await restarted).toEqual([1])
    expect((await asked)[1].restarts).toBe(1)
    const { sha256 } = await source
    await until(() => got === size)
    expect(hash.digest('hex')).toBe(sha256)
    port.off('data', take)
    port.pause()
    expect([device.attached, device.started, device.closed, events]).toEqual([true, true, false, []])
    const hot = await device.addPort({ name: 'after' })
    await until(async () => (await hot.info()).guestReady)
    await hot.remove()
  })

  it('a reader that stops holds up the guest, and nothing piles up here', async () => {
    port.pause()
    const before = (await port.stats()).counters.guestToHostBytes
    const job = machine.spawn('vmtest source /dev/vport0p1 33554432 32768')
    await sleep(1500)
    expect(job.ended).toBe(false)
    const moved = (await port.stats()).counters.guestToHostBytes - before
    expect(moved).toBeLessThan(2 << 20)
    expect(port.readableLength).toBeLessThanOrEqual(3 * 65536)
    let sum = 0
    port.on('data', (chunk: Buffer) => (sum += chunk.length))
    port.resume()
    await job.wait(60_000)
    await until(() => sum === 33554432)
    port.removeAllListeners('data')
    port.pause()
  })

  it('a guest that does not read holds up the writer, and nothing piles up here', async () => {
    const hot = await device.addPort({ name: 'org.example.full' })
    await until(async () => (await hot.info()).guestReady)
    const chunk = Buffer.alloc(65536, 'x')
    let accepted = 0
    for (let stuck = false; !stuck && accepted < 64 << 20;) {
      const full = !hot.write(chunk)
      accepted += chunk.length
      stuck = full && (await Promise.race([once(hot, 'drain').then(() => false), sleep(500).then(() => true)]))
    }
    expect(hot.writableNeedDrain).toBe(true)
    expect(accepted).toBeLessThan(2 << 20)
    const drained = once(hot, 'drain')
    const dev = `/dev/vport0p${hot.id}`
    await vmtest(machine, 'sink', [dev, accepted])
    await drained
    await hot.remove()
  })

  it('hot-plug: a port comes and goes while the guest runs', async () => {
    const hot = await device.addPort({ name: 'org.example.hot' })
    await until(async () => (await hot.info()).guestReady)
    const dev = `/dev/vport0p${hot.id}`
    // The name comes a moment after the device.
    const file = `/sys/class/virtio-ports/vport0p${hot.id}/name`
    expect(await machine.sh(`until test -e ${file}; do usleep 10000; done; cat ${file}`)).toBe('org.example.hot')
    const echo = machine.spawn(`vmtest echo ${dev}`)
    await hot.waitForGuest({ timeout: 5000 })
    hot.write('ping')
    expect(String((await once(hot, 'data'))[0])).toBe('ping')
    const removed = Promise.all([once(hot.handle, 'removed'), once(hot, 'close')])
    await hot.remove()
    await removed
    await echo.wait()
    await machine.sh(`! test -e ${dev}`)
    await expect(hot.info()).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
    await expect(device.removePort('org.example.hot')).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_NOT_FOUND' })
  })

  it('the device process stays small, and sleeps while nothing happens', async () => {
    const pid = (await hello()).devicePid!
    for (let i = 0; i < 28; i++) await device.addPort({ name: `many-${i}`, chardev: 'null' })
    const [anon, file, shared] = ['RssAnon', 'RssFile', 'RssShmem'].map((name) => statusOf(pid, name))
    console.log(`device process: ${anon} kB of its own, ${file} kB of files, ${shared} kB of the guest's memory`)
    expect(anon! + file!).toBeLessThan(100 << 10)
    await sleep(500)
    const before = cpuOf(pid)
    await sleep(2000)
    expect(cpuOf(pid) - before).toBeLessThanOrEqual(20)
    for (let i = 0; i < 28; i++) await device.removePort(`many-${i}`)
  })

  it('a port that leads elsewhere', async () => {
    const path = join(temp.path, 'elsewhere.sock')
    const got = new Promise<string>((resolve) => {
      const server = createServer((peer) => {
        server.close()
        peer.once('data', (data) => {
          resolve(String(data))
          peer.end()
        })
      }).listen(path)
    })
    await until(() => true)
    const handle = await device.addPort({ name: 'org.example.unix', chardev: `unix:${path},server=off` })
    await until(async () => (await handle.info()).guestReady)
    await machine.sh(`echo to the socket > /dev/vport0p${handle.id}`)
    expect(await got).toBe('to the socket\n')
    await handle.remove()
  })

  it('web streams', async () => {
    const hot = await device.addPort({ name: 'org.example.web' })
    await until(async () => (await hot.info()).guestReady)
    const { readable, writable } = hot.web()
    const echo = machine.spawn(`vmtest echo /dev/vport0p${hot.id} 4`)
    const writer = writable.getWriter()
    await writer.write(Buffer.from('web!'))
    const reader = readable.getReader()
    expect(String(Buffer.from((await reader.read()).value!))).toBe('web!')
    await echo.wait()
    await hot.remove()
    await reader.cancel().catch(() => {})
  })

  it('end() is the end for the guest as well', async () => {
    const hot = await device.addPort({ name: 'org.example.end', halfCloseMs: 100 })
    await until(async () => (await hot.info()).guestReady)
    const job = machine.spawn(`cat /dev/vport0p${hot.id}`)
    await hot.waitForGuest({ timeout: 5000 })
    await pipeline(Readable.from(['all ', 'there ', 'is']), hot)
    expect((await job.wait()).output).toBe('all there is')
    const again = await device.attach('org.example.end')
    expect(again.id).toBe(hot.id)
    again.destroy()
    await device.removePort(hot.id)
  })

  it('another program finds the device and takes the place of the first', async () => {
    await expect(connect({ vm: 'guest-test', port: 'org.example.0' })).rejects.toMatchObject({
      code: 'ERR_VMCHANNEL_IN_USE',
    })
    port.destroy()
    await until(async () => !(await device.ports())[0]!.hostConnected)
    const other = await connect({ vm: 'guest-test', port: 'org.example.0' })
    const echo = machine.spawn('vmtest echo /dev/vport0p1 5')
    other.write('other')
    expect(String((await once(other, 'data'))[0])).toBe('other')
    await echo.wait()
    other.destroy()
    const found = await openDevice({ control: device.controlSocket })
    expect(found.name).toBe('guest-test')
    await found.close()
    expect(device.closed).toBe(false)
  })

  it('a guest that restarts', async () => {
    const reset = once(device, 'driver-reset')
    const started = once(device, 'driver-started')
    await machine.reset()
    await reset
    await started
    port = await device.attach('org.example.0')
    const line = once(port, 'data')
    await machine.sh('echo again > /dev/vport0p1')
    expect(String((await line)[0])).toBe('again\n')
  })

  it('a VMM that is killed', async () => {
    const gone = once(device, 'vmm-detached')
    const held = await startVmtest(machine, 'hold', ['/dev/vport0p1', 0])
    void held
    await port.waitForGuest({ timeout: 5000 })
    process.kill(machine.pid, 'SIGKILL')
    await gone
    expect([device.attached, device.started, port.guestOpen]).toEqual([false, false, false])
    expect(port.destroyed).toBe(false)
  })
})

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

function* slices(data: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size)
}
