/**
 * What a takeover needs, and what it must not use: any number of things, slow keepers, too few descriptors. Needs the
 * build.
 */
import { readdirSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import type { DaemonConfig } from '../../src/daemon/protocol.ts'
import { until } from '../daemon/device.ts'
import { limitFiles, peer, stop, Supervised } from './supervised.ts'

const open: Supervised[] = []
afterEach(async () => {
  for (const one of open.splice(0)) await one.close()
})

async function start(config: Partial<DaemonConfig> = {}): Promise<Supervised> {
  const one = await Supervised.start(config)
  open.push(one)
  return one
}

const nulls = (count: number): string[] => Array.from({ length: count }, (_, i) => `null,name=p${i}`)

/** Two packets each: more than a channel takes. */
async function changes(one: Supervised, count: number): Promise<void> {
  const client = await one.device.client()
  for (let i = 0; i < count; i++) {
    await client.request('port.add', { spec: 'null,name=passing' })
    await client.request('port.remove', { port: 'passing' })
  }
}

describe('any number of things', () => {
  // A channel takes 278 packets: as many things as fit, one more, one less. Others than ports are 5.
  it('is taken over, around what a channel takes at once', async () => {
    const one = await start({ vms: [{ maxPorts: 511, ports: nulls(269) }] })
    const client = await one.device.client()
    for (let count = 270; count <= 277; count++) {
      await (await one.device.client()).request('port.add', { spec: `null,name=p${count - 1}` })
      // Five deaths in a row within a second each would be the end.
      if (count % 4 === 0) await new Promise((resolve) => setTimeout(resolve, 1100))
      await one.kill()
      expect(await one.ports()).toHaveLength(count)
    }
    client.close()
  })

  it('is taken over, with long notes and a descriptor each, and more than once', async () => {
    const long = 'x'.repeat(80)
    const one = await start({ vms: [{ maxPorts: 511, ports: [] }] })
    const client = await one.device.client()
    const names = Array.from({ length: 200 }, (_, i) => `${long}.${i}`)
    for (const [i, name] of names.entries())
      await client.request('port.add', { spec: `unix:${one.device.temp.path}/${i},name=${name}` })
    for (let i = 0; i < 2; i++) {
      await one.kill()
      expect(await one.ports()).toEqual(names)
    }
    ;(await peer(`${one.device.temp.path}/199`)).destroy()
  })
})

describe('a keeper that does not read', () => {
  it('holds nothing up, is told the rest when it reads again, and then what it has is right', async () => {
    const one = await start({ vms: [{ ports: ['null,name=a'] }] })
    await stop(one.keeper)
    await changes(one, 200)
    const client = await one.device.client()
    await client.request('port.add', { spec: `unix:${one.device.temp.path}/b,name=b` })
    await client.request('port.remove', { port: 'a' })
    const socket = await peer(`${one.device.temp.path}/b`)
    await one.logged(/the keeper \(process \d+\) does not read: until it does, the devices end if this process dies/)
    process.kill(one.keeper, 'SIGCONT')
    await one.logged('the keeper has read everything')
    await one.kill()
    expect(await one.ports()).toEqual(['b'])
    expect((await (await one.device.client()).request('port.list', {}))[0]!.hostConnected).toBe(true)
    socket.destroy()
  })

  it('starts nothing from what is old', async () => {
    const one = await start({ vms: [{ ports: ['null,name=a'] }] })
    const { devicePid } = await one.hello()
    await stop(one.keeper)
    await changes(one, 200)
    await (await one.device.client()).request('port.add', { spec: 'null,name=b' })
    process.kill(devicePid!, 'SIGKILL')
    process.kill(one.keeper, 'SIGCONT')
    expect(await one.device.exit()).toBe(70)
    expect(one.device.log).toMatch(/has died \(SIGKILL\), and what is held here is not all it had: nothing takes over/)
  })

  it('may read late what fits: nothing of it is lost', async () => {
    const one = await start({ vms: [{ ports: ['null,name=a'] }] })
    const { devicePid } = await one.hello()
    await stop(one.keeper)
    const client = await one.device.client()
    await client.request('port.add', { spec: 'null,name=b' })
    await client.request('port.remove', { port: 'a' })
    process.kill(devicePid!, 'SIGKILL')
    process.kill(one.keeper, 'SIGCONT')
    await one.restarted(1)
    expect(await one.ports()).toEqual(['b'])
  })
})

describe('out of descriptors', () => {
  const files = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length

  it('a keeper says so, and takes what it had no room for when there is room', async () => {
    const one = await start({ vms: [{ ports: [] }] })
    await one.spare()
    limitFiles(one.keeper, 4)
    const client = await one.device.client()
    await client.request('port.add', { spec: `unix:${one.device.temp.path}/a,name=a` })
    await one.logged('the limit of open files is too low for what the device process has')
    limitFiles(one.keeper, 1024)
    await one.logged('there is room for what the device process has again')
    const socket = await peer(`${one.device.temp.path}/a`)
    await until(async () => (await client.request('port.list', {}))[0]!.hostConnected)
    await one.kill()
    expect((await (await one.device.client()).request('port.list', {}))[0]).toMatchObject({
      name: 'a',
      hostConnected: true,
    })
    socket.destroy()
  })

  it('a keeper starts nothing from what it had no room for', async () => {
    const one = await start({ vms: [{ ports: [] }] })
    const { devicePid } = await one.hello()
    limitFiles(one.keeper, 4)
    const client = await one.device.client()
    await client.request('port.add', { spec: `unix:${one.device.temp.path}/a,name=a` })
    await one.logged('the limit of open files is too low')
    process.kill(devicePid!, 'SIGKILL')
    expect(await one.device.exit()).toBe(70)
    expect(one.device.log).toContain('nothing takes over, its devices end')
  })

  it('a successor says why it cannot, and the next one takes over', async () => {
    const one = await start({ vms: [{ ports: [] }] })
    const client = await one.device.client()
    for (let i = 0; i < 10; i++)
      await client.request('port.add', { spec: `unix:${one.device.temp.path}/${i},name=p${i}` })
    const spare = await one.spare()
    let before = 0
    // It is being started.
    await until(async () => {
      before = files(spare)
      await new Promise((resolve) => setTimeout(resolve, 200))
      return files(spare) === before && before > 15
    })
    limitFiles(spare, before + 4)
    const { devicePid } = await one.hello()
    process.kill(devicePid!, 'SIGKILL')
    await one.restarted(2)
    expect(one.device.log).toContain('cannot take over: the limit of open files is too low for what the keeper has')
    expect(await one.ports()).toHaveLength(10)
  })
})
