/** The configuration of `vmchannel serve`: what a file may say, and what goes over what. */
import { writeFileSync } from 'node:fs'
import { afterAll, describe, expect, it } from 'vitest'
import { formatServeConfig, parseServeConfig } from '../../src/config-file.ts'
import { VmchannelError } from '../../src/errors.ts'
import { TOPICS } from '../../src/cli/topics.ts'
import { Bench } from './run.ts'

const bench = new Bench()
afterAll(() => bench.close())

const FILE = `
state-dir = "/run/mine"
log = "info"
memory = "2G"

[[vm]]
name = "web"
socket = "/run/mine/web.sock"
max-ports = 8
queue-size = 128
vectors = 4
resize-order = "rows-cols"
iommu-platform = true
ports = [
  "unix:/run/web.sock,name=org.example.0",
  { to = "pty", console = true, cols = 80, rows = 24 },
  { to = "file:/tmp/a,,b", name = "c,d", policy = "drop-oldest", buffer = "1M", nr = 5 },
]

[[vm]]
transport = "usernet"
`

describe('a file', () => {
  it('is read', () => {
    expect(parseServeConfig(FILE, 'x.toml')).toEqual({
      stateDir: '/run/mine',
      log: 'info',
      memory: '2G',
      vms: [
        {
          name: 'web',
          socket: '/run/mine/web.sock',
          maxPorts: 8,
          queueSize: 128,
          vectors: 4,
          resizeOrder: 'rows-cols',
          iommuPlatform: true,
          ports: [
            'unix:/run/web.sock,name=org.example.0',
            'pty,console=on,policy=drop-oldest,buffer=64K,cols=80,rows=24',
            'file:/tmp/a,,b,name=c,,d,nr=5,policy=drop-oldest,buffer=1M',
          ],
        },
        { name: 'vm1', transport: 'usernet', ports: [] },
      ],
    })
  })

  it('that is written says the same', () => {
    const config = parseServeConfig(FILE, 'x.toml')
    expect(parseServeConfig(formatServeConfig(config), 'y.toml')).toEqual(config)
  })

  it('as help shows it is a good one', () => {
    const text = TOPICS.find(({ name }) => name === 'config')!.parts.find((part) => String(part).startsWith('  '))
    expect(parseServeConfig(String(text), 'help').vms).toHaveLength(1)
  })

  it.each([
    ['log = "info', 'x.toml, line 1, column', 'the file is TOML'],
    ['memroy = "1G"', 'x.toml: unknown entry "memroy"', 'did you mean "memory"?'],
    ['log = "loud"', 'log, "loud", is none of error, warn, info, debug', undefined],
    ['state-dir = 5', 'state-dir, 5,', undefined],
    ['vm = "x"', 'vm, "x", is not a list of tables', undefined],
    ['[vm]\nname = "x"', 'is not a list of tables: write [[vm]]', undefined],
    ['[[vm]]\nport = []', '[[vm]] number 1: unknown entry "port"', 'did you mean "ports"?'],
    ['[[vm]]\nname = "a b"', 'VM "a b": name, "a b", may have letters', undefined],
    ['[[vm]]\nmax-ports = 512', 'max-ports, 512, is not a whole number from 1 to 511', undefined],
    ['[[vm]]\nmax-ports = 1.5', 'max-ports, 1.5,', undefined],
    ['[[vm]]\nname = "a"\nports = ["unx:/x"]', 'VM "a", port 1: "unx" is no kind', 'did you mean "unix"?'],
    ['[[vm]]\nports = [{ name = "x" }]', 'port 1: it has no "to"', '{ to = "unix:'],
    ['[[vm]]\nports = [{ to = "null", nmae = "x" }]', 'port 1: unknown option "nmae"', 'did you mean "name"?'],
    ['[[vm]]\nports = [{ to = "null", name = [1] }]', 'port 1: name is neither text', undefined],
    ['[[vm]]\nname = "a"\n[[vm]]\nname = "a"', 'two VMs are called "a"', 'a name of its own'],
  ])('%j is refused', (source, message, hint) => {
    let error: unknown
    try {
      parseServeConfig(source, 'x.toml')
    } catch (caught) {
      error = caught
    }
    expect(error).toBeInstanceOf(VmchannelError)
    expect((error as VmchannelError).code).toBe('ERR_VMCHANNEL_USAGE')
    expect((error as VmchannelError).message).toContain('x.toml')
    expect((error as VmchannelError).message).toContain(message)
    if (hint !== undefined) expect((error as VmchannelError).hint).toContain(hint)
  })
})

describe('flags over environment over file', () => {
  const print = async (args: string[], env: Record<string, string> = {}): Promise<string> => {
    const result = await bench.run(['serve', '--print-config', ...args], {
      env: { VMCHANNEL_STATE_DIR: undefined, ...env },
    })
    expect(result.stderr).toBe('')
    expect(result.status).toBe(0)
    return result.stdout
  }
  const path = bench.path('one.toml')
  writeFileSync(path, 'memory = "1G"\nlog = "info"\n[[vm]]\nname = "a"\nmax-ports = 4\nports = ["null,name=file"]\n')

  it('nothing said: one VM with no ports', async () => {
    expect(await print([])).toBe('log = "warn"\nkeeper = true\nmemory = "512M"\n\n[[vm]]\nname = "vm0"\nports = []\n')
  })

  it('the file alone, then a variable, then a flag', async () => {
    expect(await print(['--config', path])).toContain('memory = "1G"')
    expect(await print([], { VMCHANNEL_CONFIG: path })).toContain('memory = "1G"')
    expect(await print(['--config', path], { VMCHANNEL_MEMORY: '2G' })).toContain('memory = "2G"')
    expect(await print(['--config', path, '--memory', '3G'], { VMCHANNEL_MEMORY: '2G' })).toContain('memory = "3G"')
    expect(await print(['--config', path], { VMCHANNEL_LOG: 'debug' })).toContain('log = "debug"')
    expect(await print(['--config', path, '--max-ports', '9'], { VMCHANNEL_MAX_PORTS: '5' })).toContain('max-ports = 9')
    expect(await print(['--config', path], { VMCHANNEL_STATE_DIR: '/run/x' })).toContain('state-dir = "/run/x"')
  })

  it('--port takes the place of the ports of the file', async () => {
    const text = await print(['--config', path, '-p', 'null,name=x', '-p', 'null,name=y'])
    expect(parseServeConfig(text, 'out').vms).toEqual([
      { name: 'a', maxPorts: 4, ports: ['null,name=x', 'null,name=y'] },
    ])
  })

  it('what is printed is a file', async () => {
    const text = await print(['--config', path])
    writeFileSync(bench.path('two.toml'), text)
    expect(await print(['--config', bench.path('two.toml')])).toBe(text)
  })

  it('flags for a VM need to know which', async () => {
    writeFileSync(bench.path('many.toml'), '[[vm]]\nname = "a"\n[[vm]]\nname = "b"\n')
    const run = (...args: string[]) =>
      bench.run(['serve', '--print-config', '--config', bench.path('many.toml'), ...args])
    const unclear = await run('--port', 'null')
    expect(unclear).toMatchObject({ status: 2 })
    expect(unclear.stderr).toContain('add --vm NAME; it has: a, b')
    const wrong = await run('--port', 'null', '--vm', 'c')
    expect(wrong).toMatchObject({ status: 5 })
    const right = await run('--port', 'null', '--vm', 'b')
    expect(parseServeConfig(right.stdout, 'out').vms).toEqual([
      { name: 'a', ports: [] },
      { name: 'b', ports: ['null'] },
    ])
  })
})
