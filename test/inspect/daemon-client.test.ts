/** Our end of libguestfs's protocol against daemons that are honest, and daemons that lie. */
import { describe, expect, it } from 'vitest'
import { PeerFault } from '../../src/errors.ts'
import { DaemonClient, DaemonError } from '../../src/inspect/daemon-client.ts'
import { Procedures } from '../../src/inspect/procedures.ts'
import { XdrWriter } from '../../src/inspect/xdr.ts'
import { chunk, FakeDaemon, frame, refusal, reply, text, texts, type Answer } from './fake-daemon.ts'

function start(answer: Answer): { daemon: FakeDaemon; client: DaemonClient; procedures: Procedures } {
  const daemon = new FakeDaemon(answer)
  const client = new DaemonClient(daemon.stream)
  return { daemon, client, procedures: new Procedures(client) }
}

const word = (value: number): Buffer => new XdrWriter().uint32(value).bytes()

describe('a daemon', () => {
  it('says that it is up, and answers calls with rising numbers', async () => {
    const { daemon, client, procedures } = start((call) =>
      call.proc === 476 ? reply(call, texts(['/dev/sda1', 'ext4'])) : reply(call, text('label')),
    )
    daemon.send(word(0xf5f5_5ff5))
    await client.launched()
    expect(await procedures.listFilesystems()).toEqual([['/dev/sda1', 'ext4']])
    expect(await procedures.label('/dev/sda1')).toBe('label')
    expect(daemon.calls.map(({ proc, serial }) => [proc, serial])).toEqual([
      [476, 0x123400],
      [253, 0x123401],
    ])
    expect(daemon.calls[1]!.args).toEqual(text('/dev/sda1'))
  })

  it('refuses, and goes on', async () => {
    const { procedures } = start((call) =>
      call.proc === 73 ? refusal(call, 'EINVAL', 'bad superblock') : reply(call, text('yes')),
    )
    const refused = await procedures.mountReadOnly('/dev/sda1', '/').catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(DaemonError)
    expect(refused).toMatchObject({ errno: 'EINVAL', message: 'bad superblock' })
    expect(await procedures.uuid('/dev/sda1')).toBe('yes')
  })

  it('reports progress and late cancellations before its reply', async () => {
    const seen: unknown[] = []
    const progress = new XdrWriter().uint32(0xffff_5555).uint32(480).uint32(1).uint64(3).uint64(10).bytes()
    const daemon = new FakeDaemon((call) =>
      Buffer.concat([progress, word(0xffff_eeee), reply(call, texts(['/dev/sda1']))]),
    )
    const client = new DaemonClient(daemon.stream, (one) => seen.push(one))
    expect(await new Procedures(client).inspectOs()).toEqual(['/dev/sda1'])
    expect(seen).toEqual([{ proc: 480, position: 3n, total: 10n }])
  })

  it('sends a file in pieces, however they are cut', async () => {
    const data = Buffer.from(Array.from({ length: 20_000 }, (_, at) => at % 251))
    const { procedures } = start((call, fake) => {
      const pieces = [reply(call)]
      for (let at = 0; at < data.length; at += 8192) pieces.push(chunk(data.subarray(at, at + 8192)))
      pieces.push(chunk(Buffer.alloc(0)))
      const all = Buffer.concat(pieces)
      for (let at = 0; at < all.length; at += 777) fake.send(all.subarray(at, at + 777))
      return undefined
    })
    expect((await procedures.download('/x', 1 << 20)).equals(data)).toBe(true)
  })

  it('is told to stop where a file is too long, and can be used again', async () => {
    const { daemon, procedures } = start((call, fake) => {
      if (call.proc !== 67) return reply(call, text('after'))
      fake.send(reply(call))
      const more = (): void => {
        if (fake.cancelled > 0) fake.send(chunk(Buffer.alloc(0), 1))
        else {
          fake.send(chunk(Buffer.alloc(8192, 1)))
          setImmediate(more)
        }
      }
      more()
      return undefined
    })
    await expect(procedures.download('/x', 100_000)).rejects.toMatchObject({ errno: 'EFBIG' })
    expect(daemon.cancelled).toBe(1)
    expect(await procedures.label('/dev/sda')).toBe('after')
  })

  it('gives up a file in the middle', async () => {
    const { procedures } = start((call) => Buffer.concat([reply(call), chunk(Buffer.of(1)), chunk(Buffer.alloc(0), 1)]))
    await expect(procedures.download('/x', 1000)).rejects.toBeInstanceOf(DaemonError)
  })
})

it('rpm packages as the daemon lists them', async () => {
  const record = (name: string, epoch: number): Buffer => {
    const strings = ['5.2', '1.fc40', 'x86_64', '', '', 'Fedora', 'https://gnu.org', 'bash-src', 'shell', 'The shell']
    const writer = new XdrWriter().string(name).string('').uint32(epoch)
    for (const value of [...strings, '', '', '', '']) writer.string(value)
    return writer.bytes()
  }
  const list = Buffer.concat([word(2), record('bash', 0), record('zlib', 2)])
  const [bash, zlib] = await start((call) => reply(call, list)).procedures.rpmApplications()
  expect(zlib).toEqual({ ...bash, name: 'zlib', epoch: 2 })
  expect(bash).toEqual({
    ...{ name: 'bash', displayName: '', epoch: 0, version: '5.2', release: '1.fc40', arch: 'x86_64', installPath: '' },
    ...{ publisher: 'Fedora', url: 'https://gnu.org', sourcePackage: 'bash-src', summary: 'shell' },
    description: 'The shell',
  })
})

describe('a lying daemon is found out', () => {
  it.each<[string, Answer]>([
    ['a reply of 2 GiB', () => word(0x8000_0000)],
    ['a reply to another call', (call) => reply({ ...call, serial: call.serial + 1 }, text('x'))],
    ['a reply to another procedure', (call) => reply({ ...call, proc: 1 }, text('x'))],
    [
      'a call in place of a reply',
      (call) => {
        const bytes = reply(call, text('x'))
        bytes.writeUInt32BE(0, 4 + 12)
        return bytes
      },
    ],
    ['a result that is cut off', (call) => reply(call, Buffer.from([0, 0, 0, 9, 1]))],
    ['a result with more behind it', (call) => reply(call, Buffer.concat([text('x'), text('y')]))],
    ['an empty message', () => frame(Buffer.alloc(0))],
    ['a second launch', () => word(0xf5f5_5ff5)],
  ])('%s', async (_, answer) => {
    await expect(start(answer).procedures.label('/dev/sda1')).rejects.toBeInstanceOf(PeerFault)
  })

  it.each<[string, Uint8Array]>([
    ['a chunk that is too long', frame(Buffer.alloc(9000))],
    ['a chunk whose data end early', frame(Buffer.from([0, 0, 0, 0, 0, 0, 0x20, 0]))],
  ])('%s', async (_, bytes) => {
    const { procedures } = start((call) => Buffer.concat([reply(call), bytes]))
    await expect(procedures.download('/x', 1 << 20)).rejects.toBeInstanceOf(PeerFault)
  })

  it('a file that goes on after it was cancelled', async () => {
    const { procedures } = start((call, fake) => {
      fake.send(reply(call))
      const piece = chunk(Buffer.alloc(8192))
      const many = Buffer.concat(Array.from({ length: 512 }, () => piece))
      let sent = 0
      const more = (): void => {
        fake.send(many)
        if (++sent < 40) setImmediate(more)
      }
      more()
      return undefined
    })
    await expect(procedures.download('/x', 1000)).rejects.toBeInstanceOf(PeerFault)
  })

  it('a list of applications that cannot be that long', async () => {
    const { procedures } = start((call) => reply(call, new XdrWriter().uint32(0x1000_0000).uint64(0).bytes()))
    await expect(procedures.rpmApplications()).rejects.toBeInstanceOf(PeerFault)
  })

  it('one that says something else than that it is up', async () => {
    const { daemon, client } = start(() => undefined)
    daemon.send(Buffer.from('GET '))
    await expect(client.launched()).rejects.toBeInstanceOf(PeerFault)
  })

  it('one that goes', async () => {
    const { daemon, procedures } = start((_, fake) => {
      fake.end()
      return undefined
    })
    await expect(procedures.label('/dev/sda1')).rejects.toMatchObject({ code: 'ERR_VMCHANNEL_CLOSED' })
    expect(daemon.calls).toHaveLength(1)
  })
})
