/**
 * What bad input gets: a message that names the argument, what was found, what was expected and the next step; the exit
 * status that the man page gives; and nothing started half-way.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Bench, until, type Result } from './run.ts'

let bench: Bench
let servers: Server[]
beforeEach(() => {
  bench = new Bench()
  servers = []
})
afterEach(async () => {
  for (const server of servers) server.close()
  await bench.close()
})

/** Runs `vmchannel qemu` with a QEMU that must not be run in earnest. */
async function refused(args: readonly string[], fake?: Parameters<Bench['fakeQemu']>[0]): Promise<Result> {
  const env = { VMCHANNEL_QEMU: bench.fakeQemu(fake), HOME: bench.folder, XDG_CACHE_HOME: undefined }
  const result = await bench.run(['qemu', ...args], { env })
  expect(existsSync(bench.path('ran')), 'QEMU was started').toBe(false)
  await until('no device process is left', () => !existsSync(bench.state) || readdirSync(bench.state).length === 0)
  expect(result.stdout).toBe('')
  expect(result.stderr).toMatch(/^vmchannel: /)
  expect(result.stderr).not.toContain('    at ')
  return result
}

async function listen(path: string): Promise<void> {
  const server = createServer()
  servers.push(server)
  await new Promise<void>((done) => server.listen(path, done))
}

const SIZE = ['-m', '128M']

describe('vmchannel qemu', () => {
  it.each([
    ['wrong syntax', 'unix', 'path'],
    ['an option without a value', 'unix:/tmp/x,name', 'name=VALUE'],
    ['an unknown option', 'unix:/tmp/x,nmae=a', 'did you mean "name"?'],
    ['an option twice', 'unix:/tmp/x,name=a,name=b', 'given twice'],
    ['an unknown back end', 'unx:/tmp/x', 'did you mean "unix"?'],
    ['a path where a kind belongs', '/tmp/x', 'write unix:/tmp/x'],
    ['a port number out of range', 'null,nr=511', 'from 0 to 510'],
    ['a name with a slash', 'null,name=a/b', 'without "/"'],
    ['a path longer than a socket may have', `unix:/${'x'.repeat(120)}`, '107 bytes'],
    ['a tcp port that is none', 'tcp:localhost:99999', '65535'],
    ['a policy that is none', 'null,policy=blok', 'block'],
    ['a console that blocks', 'null,console=on,policy=block', 'drop-oldest'],
  ])('%s: status 2', async (_, spec, expected) => {
    const { status, stderr } = await refused([...SIZE, '-virtioserial', spec])
    expect(status).toBe(2)
    expect(stderr).toContain('-virtioserial')
    expect(stderr).toContain(expected)
  })

  it('-virtioserial without a port: status 2', async () => {
    const { status, stderr } = await refused([...SIZE, '-virtioserial'])
    expect(status).toBe(2)
    expect(stderr).toContain('needs a port behind it')
  })

  it('a missing directory: status 3', async () => {
    const path = bench.path('no/such/a.sock')
    const { status, stderr } = await refused([...SIZE, '-virtioserial', `unix:${path}`])
    expect(status).toBe(3)
    expect(stderr).toContain(path)
    expect(stderr).toMatch(/directory/)
  })

  it('a socket of a live process: status 4, and the socket stays', async () => {
    const path = bench.path('live.sock')
    await listen(path)
    const { status, stderr } = await refused([...SIZE, '-virtioserial', `unix:${path}`])
    expect(status).toBe(4)
    expect(stderr).toContain(path)
    expect(existsSync(path)).toBe(true)
  })

  it('a file where the socket should be: refused, and the file stays', async () => {
    const path = bench.path('file.sock')
    writeFileSync(path, 'precious')
    const { status, stderr } = await refused([...SIZE, '-virtioserial', `unix:${path}`])
    expect(status).toBe(2)
    expect(stderr).toContain(path)
    expect(readFileSync(path, 'utf8')).toBe('precious')
  })

  it('what was opened before the one that fails is closed again', async () => {
    const first = bench.path('first.sock')
    const { status } = await refused([
      ...SIZE,
      ...['-virtioserial', `unix:${first}`],
      ...['-virtioserial', `unix:${bench.path('no/such/b.sock')}`],
    ])
    expect(status).toBe(3)
    expect(existsSync(first)).toBe(false)
  })

  it('two ports of one name', async () => {
    const { status, stderr } = await refused([...SIZE, '-virtioserial', 'null,name=a', '-virtioserial', 'null,name=a'])
    expect(status).toBe(4)
    expect(stderr).toContain('"a"')
  })

  it('two ports of one number', async () => {
    const { status, stderr } = await refused([...SIZE, '-virtioserial', 'null,nr=4', '-virtioserial', 'null,nr=4'])
    expect(status).toBe(4)
    expect(stderr).toContain('4')
  })

  it('a generic port of number 0', async () => {
    const { status, stderr } = await refused([...SIZE, '-virtioserial', 'null,nr=0'])
    expect(status).toBe(6)
    expect(stderr).toMatch(/console/)
  })

  it.each([
    [
      'memory backend with share=off',
      ['-object', 'memory-backend-ram,id=m,size=128M,share=off', '-machine', 'memory-backend=m'],
    ],
    [
      'memory file with share=off',
      ['-object', 'memory-backend-file,id=m,size=128M,mem-path=/dev/shm/x,share=off', '-machine', 'memory-backend=m'],
    ],
  ])('%s: status 7', async (_, args) => {
    const { status, stderr } = await refused([...SIZE, ...args, '-virtioserial', 'null'])
    expect(status).toBe(7)
    expect(stderr).toContain('share=o')
  })

  it('a QEMU that is too old: status 8', async () => {
    const { status, stderr } = await refused([...SIZE, '-virtioserial', 'null,transport=vfio-user'], {
      version: '7.2.22',
    })
    expect(status).toBe(8)
    expect(stderr).toContain('7.2.22')
    expect(stderr).toContain('10.1')
    expect(stderr).toContain('VMCHANNEL_QEMU')
  })

  it('a QEMU without vfio-user-pci: status 8', async () => {
    const { status, stderr } = await refused([...SIZE, '-virtioserial', 'null,transport=vfio-user'], { device: false })
    expect(status).toBe(8)
    expect(stderr).toContain('vfio-user-pci')
  })

  it('a QEMU that is not there, is a directory, is no QEMU: status 8', async () => {
    mkdirSync(bench.path('folder'))
    const other = bench.script('other', '#!/bin/sh\necho hello\n')
    for (const [path, expected] of [
      [bench.path('nowhere'), 'does not exist'],
      [bench.path('folder'), 'is not a file'],
      [other, 'is no QEMU'],
    ]) {
      const result = await bench.run(['qemu', '--qemu-binary', path!, ...SIZE, '-virtioserial', 'null'])
      expect(result.status).toBe(8)
      expect(result.stderr).toContain(expected)
      expect(result.stderr).toContain(path)
    }
  })

  it('our own options: no value, no level, --json alone', async () => {
    expect((await refused(['--log', 'loud', ...SIZE, '-virtioserial', 'null'])).stderr).toContain(
      'error, warn, info, debug',
    )
    expect((await refused(['--qemu-binary'])).stderr).toContain('--qemu-binary has no value')
    expect((await refused(['--log'])).status).toBe(2)
    const json = await bench.run(['qemu', '--json', ...SIZE])
    expect(json.status).toBe(2)
    expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: 'ERR_VMCHANNEL_USAGE' } })
  })

  it('a state directory that others may write to: status 2', async () => {
    mkdirSync(bench.state, { mode: 0o777 })
    chmodSync(bench.state, 0o777)
    const env = { VMCHANNEL_QEMU: bench.fakeQemu(), HOME: bench.folder }
    const { status, stderr } = await bench.run(['qemu', ...SIZE, '-virtioserial', 'null'], { env })
    expect(status).toBe(2)
    expect(stderr).toContain('others may write to it')
    expect(existsSync(bench.path('ran'))).toBe(false)
  })
})

describe('serve', () => {
  const serve = (...args: string[]): Promise<Result> => bench.run(['serve', ...args])
  it.each([
    [['--port', 'unx:/x'], 2, '--port'],
    [['--memory', 'lots'], 2, '--memory: "lots"'],
    [['--max-ports', '512'], 2, 'from 1 to 511'],
    [['--max-ports', '2', '--port', 'null,nr=7'], 6, '7'],
    [['--port', 'null,name=a', '--port', 'null,name=a'], 4, '"a"'],
    [['--config', '/no/such.toml'], 5, 'no such file'],
    [['--port', 'unix:/no/such/dir/a.sock'], 3, '/no/such/dir/a.sock'],
    [['--socket', '/no/such/dir/vfio.sock'], 3, '/no/such/dir/vfio.sock'],
  ])('%j: status %i', async (args, status, expected) => {
    const result = await serve(...args)
    expect(result.stderr).toContain(expected)
    expect(result).toMatchObject({ status, stdout: '' })
    expect(result.stderr).not.toContain('    at ')
  })

  it('a second one of the same name: status 4, the first goes on', async () => {
    const first = bench.start(['serve', '--port', 'null'])
    await until('the first is ready', () => existsSync(`${bench.state}/serve-vm0/control.sock`))
    const second = await serve('--port', 'null')
    expect(second.status).toBe(4)
    expect(first.exitCode).toBe(null)
    expect((await bench.run(['port', 'list'])).status).toBe(0)
  })
})
