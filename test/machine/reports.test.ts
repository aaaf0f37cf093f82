/**
 * What users report of virtio-serial devices, on a stock guest behind our device: output at power-off, peers that come
 * late, leave and come back while the machine stands still, fill a port before anybody opens it; programs that leave a
 * port open in a child.
 */
import { createHash } from 'node:crypto'
import { createServer, type Server, type Socket } from 'node:net'
import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { Pattern, patternSha256 } from '../../lab/pattern.ts'
import { portNode } from '../../lab/ports.ts'
import { startVmtest, vmtest } from '../../lab/vmtest.ts'
import { Bench, MAIN } from '../cli/run.ts'
import { readBytes, Rig, until } from './rig.ts'

const MIB = 1 << 20
const SLOW = { timeout: 240_000 }

describe('a port', () => {
  let rig: Rig
  beforeAll(async () => {
    rig = await Rig.start({ ports: ['unix,name=org.example.0', 'unix,name=org.example.1'] })
  })
  afterEach(() => rig.hangUp())
  afterAll(() => rig?.close())

  it('a child that inherited the port keeps it open: the next program is refused until the child has gone', async () => {
    const node = await rig.node('org.example.0')
    const { job } = await startVmtest(rig.machine, 'hold', [node, 0])
    await until(() => rig.port('org.example.0').guestOpen, 'the host sees the port open')
    expect(await rig.machine.run(`cat < ${node}`)).toMatchObject({ status: 1 })
    expect((await rig.machine.run(`cat < ${node}`)).output).toMatch(/Device or resource busy/)
    expect(rig.port('org.example.0').guestOpen).toBe(true)
    job.kill(9)
    await job.wait()
    const peer = await rig.connect('org.example.0')
    const sink = await startVmtest(rig.machine, 'sink', [node, 1000])
    peer.write(new Pattern().take(1000))
    expect((await sink.result()).sha256).toBe(patternSha256(1000))
  })

  it('a host that fills it before the guest opens it is held up, costs nothing, and loses nothing', SLOW, async () => {
    const total = 8 * MIB
    const peer = await rig.connect('org.example.0')
    peer.write(new Pattern().take(total))
    let taken = -1
    await until(async () => {
      const before = taken
      taken = peer.bytesWritten - peer.writableLength
      await sleep(200)
      return taken === before
    }, 'the host has to wait')
    const port = rig.port('org.example.0')
    const before = port.stats()
    expect(before).toMatchObject({ hostToGuestDropped: 0, held: 0 })
    await sleep(1000)
    expect(port.stats()).toEqual(before)
    const sink = await startVmtest(rig.machine, 'sink', [await rig.node('org.example.0'), total])
    expect((await sink.result(120_000)).sha256).toBe(patternSha256(total))
    // The same again, and the port is unplugged while the host waits.
    const port1 = await rig.connect('org.example.1')
    port1.write(new Pattern().take(total))
    await sleep(300)
    const ended = new Promise((resolve) => port1.once('close', resolve))
    rig.device.removePort(rig.port('org.example.1').id)
    await ended
    await rig.machine.sh('until ! grep -q org.example.1 /sys/class/virtio-ports/*/name; do sleep 0.05; done')
    await rig.addPort('unix,name=org.example.1')
  })

  it('a machine that stands still while peers leave and come: nothing of the second is missing', SLOW, async () => {
    const name = 'org.example.1'
    const node = await rig.node(name)
    const first = await rig.connect(name)
    const job = rig.machine.spawn(`i=0; while :; do echo "line $i"; i=$((i+1)); done > ${node}`)
    let heard = ''
    first.setEncoding('latin1').on('data', (text) => void (heard += String(text)))
    await until(() => heard.length > 10_000, 'the first peer hears lines')
    await rig.machine.qmp('stop')
    first.destroy()
    await until(() => !rig.port(name).hostConnected, 'the first peer has gone')
    const second = await rig.connect(name)
    let later = ''
    second.setEncoding('latin1').on('data', (text) => void (later += String(text)))
    const other = await rig.connect('org.example.0')
    other.write(new Pattern(5).take(MIB))
    await sleep(2000)
    await rig.machine.qmp('cont')
    await until(() => later.length > 20_000, 'the second peer hears lines')
    job.kill(9)
    await job.wait()
    // What was given to the first peer is gone with it; from there on nothing is missing.
    const numbers = later
      .split('\n')
      .slice(1, -1)
      .map((line) => Number(/^line (\d+)$/.exec(line)?.[1]))
    expect(numbers.length).toBeGreaterThan(1000)
    expect(numbers).toEqual(numbers.map((_, i) => numbers[0]! + i))
    const sink = await startVmtest(rig.machine, 'sink', [await rig.node('org.example.0'), MIB])
    expect((await sink.result(60_000)).sha256).toBe(patternSha256(MIB, 5))
  })
})

/** More by hand: VMCHANNEL_POWER_OFFS=100. */
const POWER_OFFS = Number(process.env['VMCHANNEL_POWER_OFFS'] ?? 2)

describe('a guest that powers off', () => {
  const bench = new Bench()
  afterAll(() => bench.close())

  it(`has written its exit status to a file when QEMU ends, ${POWER_OFFS} times`, { timeout: 3_600_000 }, async () => {
    const file = bench.path('ret')
    const missed: string[] = []
    for (let i = 0; i < POWER_OFFS; i++) {
      const machine = await Machine.boot({
        ...{ qemu: (await ensureQemu()).path, kernel: await ensureKernel('6.1'), bootTimeout: 180_000 },
        args: ['-no-reboot', '-virtioserial', `file:${file},name=virtme.ret`],
        launcher: (binary, line) => ({
          file: process.execPath,
          args: [MAIN, 'qemu', '--qemu-binary', binary, ...line],
          env: { VMCHANNEL_STATE_DIR: bench.state, HOME: bench.folder },
        }),
      })
      try {
        const node = await portNode(machine, 'virtme.ret')
        machine.spawn(`echo "42 ${i}" > ${node}; poweroff -f`)
        await machine.exited()
        const text = existsSync(file) ? readFileSync(file, 'utf8') : ''
        if (text !== `42 ${i}\n`) missed.push(`${i}: ${JSON.stringify(text)}`)
      } finally {
        await machine.close()
      }
    }
    expect(missed).toEqual([])
  })
})

describe('a console', () => {
  let rig: Rig | undefined
  const servers: Server[] = []
  afterEach(async () => {
    for (const server of servers.splice(0)) server.close()
    await rig?.close()
  })

  it('whose peer listens late: the newest 64 KiB, in order, and the guest has not waited', SLOW, async () => {
    rig = await Rig.start({ ports: ['unix,name=other'], bootTimeout: 120_000 })
    const path = rig.socket('late')
    const port = await rig.addPort(`unix:${path},server=off,reconnect-ms=100,name=late,console=on`)
    await until(() => port.guestReady, 'the driver has made it')
    const wrote = Number(
      await rig.machine.sh(
        'exec 3<>/dev/hvc0; stty raw <&3; seq 1 40000 > /tmp/seq; cat /tmp/seq >&3; wc -c < /tmp/seq',
        {
          timeout: 60_000,
        },
      ),
    )
    await until(() => port.counters.held + port.counters.guestToHostDropped >= wrote, 'all is held or dropped')
    const peer = await new Promise<Socket>((resolve) => {
      const server = createServer(resolve)
      servers.push(server)
      server.listen(path)
    })
    const text = (await readBytes(peer, 65_536)).toString()
    const lines = text.split('\n').slice(1, -1).map(Number)
    expect(lines).toEqual(lines.map((_, i) => 40_001 - lines.length + i))
    expect(port.counters.guestToHostDropped).toBe(wrote - 65_536)
    peer.destroy()
  })

  it('over a socket whose peer reads 64 KiB each 10 ms: 10 MB, and whatever is dropped is counted', SLOW, async () => {
    rig = await Rig.start({ ports: ['unix,name=shell,console=on'] })
    const peer = await rig.connect('shell')
    const hash = createHash('sha256')
    let got = 0
    peer.pause()
    const timer = setInterval(() => {
      const chunk = peer.read(Math.min(64 << 10, peer.readableLength)) as Buffer | null
      if (chunk) {
        hash.update(chunk)
        got += chunk.length
      }
    }, 10)
    const wrote = 10_000_000
    const sum = await rig.machine.sh(
      `exec 3<>/dev/hvc0; stty raw <&3; base64 -w76 /dev/urandom 2>/dev/null | head -c ${wrote} | tee /tmp/f >&3; sha256sum < /tmp/f`,
      { timeout: 180_000 },
    )
    const { counters } = rig.port('shell')
    await until(() => got + counters.guestToHostDropped === wrote, 'all is read or counted', 60_000)
    clearInterval(timer)
    process.stdout.write(`a console of ${wrote} bytes to a slow reader: ${counters.guestToHostDropped} dropped\n`)
    if (counters.guestToHostDropped === 0) expect(hash.digest('hex')).toBe(sum.split(' ')[0])
    expect((await vmtest(rig.machine, 'poll', ['/dev/hvc0', 0])).revents).not.toContain('ERR')
    peer.destroy()
  })
})
