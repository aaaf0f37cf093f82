import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { nearest } from '../src/chardev/options.ts'
import { checkChardevSpec, formatChardevSpec, parseChardevSpec } from '../src/chardev/spec.ts'
import { VmchannelError } from '../src/errors.ts'
import { checkPortSpec, formatPortSpec, parsePortSpec, type PortSpec } from '../src/port-spec.ts'

const parse = (text: string): PortSpec => parsePortSpec(text, '-virtioserial')

function failure(fn: () => unknown): VmchannelError {
  try {
    fn()
  } catch (error) {
    if (error instanceof VmchannelError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

describe('what people write', () => {
  test.each<[string, PortSpec]>([
    [
      'unix:/path,server=on,wait=off,name=org.example.0',
      { chardev: { kind: 'unix', path: '/path', server: true, wait: false }, name: 'org.example.0' },
    ],
    ['unix:/path,server,nowait', { chardev: { kind: 'unix', path: '/path', server: true, wait: false } }],
    ['unix:/a,,b,mode=0660', { chardev: { kind: 'unix', path: '/a,b', mode: 0o660 } }],
    ['unix,path=/x', { chardev: { kind: 'unix', path: '/x' } }],
    ['unix:/x,server=off,reconnect=2', { chardev: { kind: 'unix', path: '/x', server: false, reconnectMs: 2000 } }],
    ['tcp:127.0.0.1:4555,server=on', { chardev: { kind: 'tcp', host: '127.0.0.1', port: 4555, server: true } }],
    ['tcp::4555,nodelay', { chardev: { kind: 'tcp', port: 4555, nodelay: true } }],
    ['tcp:4555,nonodelay', { chardev: { kind: 'tcp', port: 4555, nodelay: false } }],
    ['tcp:[::1]:80', { chardev: { kind: 'tcp', host: '::1', port: 80 } }],
    ['tcp,host=localhost,port=1', { chardev: { kind: 'tcp', host: 'localhost', port: 1 } }],
    ['pty', { chardev: { kind: 'pty' } }],
    ['pty:/tmp/link', { chardev: { kind: 'pty', path: '/tmp/link' } }],
    ['pty:path=/tmp/link', { chardev: { kind: 'pty', path: '/tmp/link' } }],
    ['pty,path=/tmp/link,nr=3', { chardev: { kind: 'pty', path: '/tmp/link' }, id: 3 }],
    ['stdio,signal=off', { chardev: { kind: 'stdio', signal: false } }],
    ['file:/l,append=on,input-path=/i', { chardev: { kind: 'file', path: '/l', append: true, inputPath: '/i' } }],
    ['fifo:/p', { chardev: { kind: 'pipe', path: '/p' } }],
    ['null', { chardev: { kind: 'null' } }],
    ['stream,name=x', { chardev: { kind: 'attach' }, name: 'x' }],
    ['null,console', { chardev: { kind: 'null' }, console: true, policy: 'drop-oldest', buffer: 65536 }],
    ['null,console=off', { chardev: { kind: 'null' }, console: false }],
    ['null,console=on,policy=discard', { chardev: { kind: 'null' }, console: true, policy: 'discard' }],
    ['null,policy=drop-newest,buffer=1M', { chardev: { kind: 'null' }, policy: 'drop-newest', buffer: 1 << 20 }],
    ['null,on-close=drain,drain-ms=500', { chardev: { kind: 'null' }, onClose: 'drain', drainMs: 500 }],
    ['null,cols=80,rows=24', { chardev: { kind: 'null' }, cols: 80, rows: 24 }],
  ])('%s', (text, spec) => {
    expect(parse(text)).toEqual(spec)
    expect(parse(formatPortSpec(spec))).toEqual(spec)
    expect(checkPortSpec(spec, 'port')).toEqual(spec)
  })

  test('on/off, yes/no, true/false', () => {
    for (const word of ['on', 'yes', 'true', 'y']) expect(parse(`null,console=${word}`).console).toBe(true)
    for (const word of ['off', 'no', 'false', 'n']) expect(parse(`null,console=${word}`).console).toBe(false)
  })
})

describe('what is refused, and how', () => {
  test.each<[string, RegExp, RegExp]>([
    ['unix:/p,serverr=on', /-virtioserial: unknown option "serverr"/, /did you mean "server"\?/],
    ['unix:/p,nam=x', /unknown option "nam"/, /did you mean "name"\?/],
    ['unix:/p,toString=1', /unknown option "toString"/, /unix port takes: path, server/],
    ['unxi:/p', /"unxi" is no kind of back end/, /did you mean "unix"\?/],
    ['/run/vm.sock', /"\/run\/vm.sock" is no kind/, /write unix:\/run\/vm.sock/],
    ['socket,path=/x', /"socket" is no kind/, /unix:\/path or tcp:host:port/],
    ['constructor', /no kind/, /one of: unix, tcp/],
    ['', /"" is no kind/, /one of/],
    ['unix', /unix needs path/, /a path/],
    ['unix:', /unix needs path/, /a path/],
    [`unix:/${'x'.repeat(107)}`, /at most 107 bytes/, /^$/],
    ['unix:/a\0b', /not a path/, /^$/],
    ['unix:/p,server=maybe', /server=maybe is not on or off/, /^$/],
    ['unix:/p,server=on,server=off', /server is given twice/, /leave one/],
    ['unix:/p,path=/q', /path is given twice/, /leave one/],
    ['unix:/p,reconnect=1,reconnect-ms=5,server=off', /reconnect-ms is given twice/, /leave one/],
    ['unix:/p,name', /name has no value/, /write name=VALUE/],
    ['unix:/p,,', /^$/, /^$/],
    ['unix:/p,', /an option is empty/, /literal comma/],
    ['unix:/p,reconnect-ms=100', /reconnect is for a back end that connects/, /server=off/],
    ['unix:/p,server=off,wait=on', /wait=on is for a back end that listens/, /leave wait out/],
    ['tcp:host:99999', /port=99999 is not a whole number from 0 to 65535/, /^$/],
    ['tcp:host', /"host" is not HOST:PORT/, /tcp:127.0.0.1:4555/],
    ['tcp::1,ipv4=off,ipv6=off', /both off/, /leave one/],
    ['null:x', /null takes nothing behind the colon/, /write null/],
    ['null,console=on,policy=block', /policy=block cannot be had for a console/, /interrupts off/],
    ['null,buffer=64K', /buffer is of no use with policy=block/, /drop-oldest/],
    ['null,policy=drop-oldest,buffer=1', /buffer=1 is not a size from 1K to 1G/, /^$/],
    ['null,policy=drop-oldest,buffer=9999999999G', /is not a size/, /^$/],
    ['null,policy=slow', /one of block, drop-oldest/, /^$/],
    ['null,drain-ms=5', /on-close=drain/, /add on-close=drain/],
    ['null,cols=80', /cols and rows belong together/, /cols=80,rows=24/],
    ['null,nr=511', /nr=511 is not a whole number from 0 to 510/, /^$/],
    ['null,nr=-1', /nr=-1/, /^$/],
    ['null,nr=1e1', /nr=1e1/, /^$/],
    ['null,name=', /port name/, /^$/],
    ['null,name=a/b', /port name/, /^$/],
    ['null,name=..', /port name/, /^$/],
    ['null,name=a\nb', /name=a\\x0ab is not a port name/, /^$/],
    ['null,name=a\0', /port name/, /^$/],
    ['null,name=\u0085', /port name/, /^$/],
    ['null,name=\ud800', /port name/, /^$/],
    [`null,name=${'ä'.repeat(61)}`, /port name/, /^$/],
    ['unix:/p,mode=0999', /permission bits in octal/, /^$/],
  ])('%j', (text, message, hint) => {
    if (text === 'unix:/p,,') return expect(parse(text).chardev).toEqual({ kind: 'unix', path: '/p,' })
    const error = failure(() => parse(text))
    expect(error.code).toBe('ERR_VMCHANNEL_USAGE')
    expect(error.message).toMatch(/^-virtioserial: /)
    expect(error.message).toMatch(message)
    expect(error.hint ?? '').toMatch(hint)
  })

  test('a name of 120 bytes passes', () => {
    expect(parse(`null,name=${'ä'.repeat(60)}`).name).toHaveLength(60)
  })

  test.each<[unknown, RegExp]>([
    [undefined, /ports\[0\]: undefined is not a port/],
    [7, /7 is not a port/],
    [[], /an array is not a port/],
    [{}, /ports\[0\].chardev: undefined is not a back end/],
    [{ chardev: { kind: 'unix' } }, /ports\[0\].chardev: unix needs path/],
    [{ chardev: { kind: 'unix', path: 5 } }, /ports\[0\].chardev.path: 5 is not a path/],
    [{ chardev: { kind: 'unix', path: '/x', serverr: true } }, /unknown property "serverr"/],
    [{ chardev: 'null', consol: true }, /unknown property "consol"/],
    [{ chardev: 'null', console: 'on' }, /ports\[0\].console: "on" is not on or off/],
    [{ chardev: 'null', buffer: 1.5 }, /buffer: 1.5 is not/],
    [{ chardev: 'null', id: NaN }, /id: NaN is not/],
    [{ chardev: { kind: 'tcp' } }, /tcp needs port/],
    [{ chardev: { kind: 'tcp', port: 0, server: false } }, /port 0/],
    [{ chardev: 'nul' }, /ports\[0\].chardev: "nul" is no kind/],
  ])('objects: %j', (value, message) => {
    expect(failure(() => checkPortSpec(value, 'ports[0]')).message).toMatch(message)
  })

  test('an object is copied, not kept; undefined properties do not count', () => {
    const given = { chardev: { kind: 'unix', path: '/x', mode: undefined }, name: undefined }
    const spec = checkPortSpec(given, 'port')
    expect(spec).toEqual({ chardev: { kind: 'unix', path: '/x' } })
    given.chardev.path = '/y'
    expect(spec.chardev).toEqual({ kind: 'unix', path: '/x' })
  })
})

describe('properties', () => {
  const optional = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
    fc.option(arbitrary, { nil: undefined })
  const bool = optional(fc.boolean())
  const text = fc.string({
    unit: fc.constantFrom(...Array.from('ab,=:/ .%[]\\"ö'), 'path=', 'server'),
    minLength: 1,
    maxLength: 24,
  })
  const chardev = fc.oneof(
    fc.record({
      kind: fc.constant('unix'),
      path: text,
      server: fc.constantFrom(undefined, true),
      wait: bool,
      mode: optional(fc.integer({ min: 0, max: 0o777 })),
      halfCloseMs: optional(fc.nat(10_000)),
    }),
    fc.record({
      kind: fc.constant('unix'),
      path: text,
      server: fc.constant(false),
      reconnectMs: optional(fc.nat(9999)),
    }),
    fc.record({
      kind: fc.constant('tcp'),
      host: fc.constantFrom(undefined, '::1', 'localhost', 'a,b', '0.0.0.0'),
      port: fc.integer({ min: 1, max: 65535 }),
      server: fc.constantFrom(undefined, true),
      nodelay: bool,
      ipv4: bool,
    }),
    fc.record({ kind: fc.constant('pty'), path: optional(text) }),
    fc.record({ kind: fc.constant('stdio'), signal: bool }),
    fc.record({ kind: fc.constant('file'), path: text, append: bool, inputPath: optional(text) }),
    fc.record({ kind: fc.constant('pipe'), path: text }),
    fc.record({ kind: fc.constantFrom('null', 'attach') }),
  )
  const size = fc.constantFrom(undefined, 1024, 1025, 65536, 1 << 20, 3 * 2 ** 28)
  const port = fc.record({
    chardev,
    name: optional(fc.constantFrom('org.example.0', 'a,b', ',', 'x=y', ' ', 'server=on', '…')),
    id: optional(fc.nat(510)),
    console: bool,
    policy: fc.constantFrom('drop-oldest', 'drop-newest'),
    buffer: size,
    onClose: fc.constantFrom(undefined, 'discard', 'keep', 'drain'),
    size: bool,
  })

  test('what is written is read back as it was', () => {
    fc.assert(
      fc.property(port, ({ size, ...given }) => {
        const spec = checkPortSpec(size ? { ...given, cols: 132, rows: 50 } : given, 'port')
        const written = formatPortSpec(spec)
        expect(parse(written)).toEqual(spec)
        expect(formatPortSpec(parse(written))).toBe(written)
        const alone = formatChardevSpec(spec.chardev)
        expect(parseChardevSpec(alone, 'x')).toEqual(spec.chardev)
      }),
      { numRuns: 2000 },
    )
  })

  test('no text makes it throw anything but a usage error', () => {
    const word = fc.constantFrom(
      'unix',
      'tcp',
      'pty',
      ':',
      '/p',
      ',',
      ',,',
      '=',
      'name',
      'server',
      'no',
      '1',
      '[',
      ']',
      'on',
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(word).map((w) => w.join('')),
        ),
        (source) => {
          try {
            parse(source)
          } catch (error) {
            expect(error).toBeInstanceOf(VmchannelError)
            expect((error as VmchannelError).code).toBe('ERR_VMCHANNEL_USAGE')
          }
        },
      ),
      { numRuns: 3000 },
    )
  })

  test('no value makes the check throw anything but a usage error', () => {
    fc.assert(
      fc.property(fc.anything(), fc.constantFrom('unix', 'tcp', 'pty', 'null'), (value, kind) => {
        for (const candidate of [value, { chardev: value }, { chardev: { kind, path: value, port: value } }]) {
          try {
            checkPortSpec(candidate, 'port')
          } catch (error) {
            expect(error).toBeInstanceOf(VmchannelError)
          }
        }
        try {
          checkChardevSpec(value, 'x')
        } catch (error) {
          expect(error).toBeInstanceOf(VmchannelError)
        }
      }),
      { numRuns: 2000 },
    )
  })

  test('suggestions', () => {
    expect(nearest('recconnect-ms', ['server', 'reconnect-ms'])).toBe('reconnect-ms')
    expect(nearest('zzz', ['server', 'wait'])).toBeUndefined()
    expect(nearest('x'.repeat(10_000), ['server'])).toBeUndefined()
  })
})
