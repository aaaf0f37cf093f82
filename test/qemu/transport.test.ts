/** Ports of -virtioserial where QEMU cannot have our device, or is told not to: what QEMU gets, what is said. */
import { describe, expect, it } from 'vitest'
import { parseChardevSpec } from '../../src/chardev/spec.ts'
import { VmchannelError } from '../../src/errors.ts'
import { convertChardev } from '../../src/qemu/chardev.ts'
import { parseOptionString } from '../../src/qemu/option.ts'
import { planQemu, type PlanHost } from '../../src/qemu/plan.ts'
import { toQemuChardev } from '../../src/qemu/to-chardev.ts'
import { takeTransport } from '../../src/qemu/transport.ts'

const words = (text: string): string[] => text.trim().split(/\s+/)
const OLD: PlanHost = {
  ability: () => ({ version: '7.2.22', obstacle: new VmchannelError('ERR_VMCHANNEL_QEMU', 'QEMU 7.2.22 is too old') }),
}
const NEW: PlanHost = { ability: () => ({ version: '11.1.3', obstacle: undefined }) }
const argsOf = (text: string, host: PlanHost): string[] => {
  const plan = planQemu(words(text), host)
  return plan.qemuArgs(plan.devices.map((_, at) => `/run/d${at}.sock`))
}
const jsonOf = (args: string[]): Record<string, unknown>[] =>
  args.filter((word) => word.startsWith('{')).map((word) => JSON.parse(word) as Record<string, unknown>)

const TWO = '-virtioserial unix:/a,name=x,nr=5 -m 1G -virtioserial pty,console=on disk.img'

describe('a QEMU without vfio-user-pci', () => {
  it('has the ports on its own device: same names and numbers, at the end, no shared memory', () => {
    const args = argsOf(TWO, OLD)
    expect(args.slice(0, 3)).toEqual(['-m', '1G', 'disk.img'])
    expect(args.slice(3).filter((word) => !word.startsWith('-'))).toHaveLength(5)
    expect(jsonOf(args)).toEqual([
      { driver: 'virtio-serial-pci', id: 'vmchannel', max_ports: 31 },
      {
        ...{ driver: 'virtserialport', id: 'vmchannel-p5', bus: 'vmchannel.0', nr: 5 },
        ...{ chardev: 'vmchannel-c5', name: 'x' },
      },
      { driver: 'virtconsole', id: 'vmchannel-p0', bus: 'vmchannel.0', nr: 0, chardev: 'vmchannel-c0' },
    ])
    expect(args).toContain('socket,id=vmchannel-c5,path=/a,server=on,wait=off')
  })

  it('is said in one line, and no device process is started', () => {
    const plan = planQemu(words(TWO), OLD)
    expect(plan.devices).toEqual([])
    expect(plan.passThrough).toBe("all ports are on QEMU's own virtio-serial-pci")
    expect(plan.warnings).toEqual([expect.stringMatching(/^QEMU 7\.2\.22 is too old: the ports .* "vmchannel port"/)])
  })

  it('keeps its own devices to itself, with a line for each that we would have taken', () => {
    const text = '-device virtio-serial -chardev null,id=c -device virtserialport,chardev=c,name=a'
    expect(argsOf(text, OLD)).toEqual(words(text))
    expect(planQemu(words(text), OLD).warnings).toEqual([
      '-device virtio-serial stays with QEMU: QEMU 7.2.22 is too old',
    ])
    expect(() => planQemu(words(`${text} -virtioserial null,name=a`), OLD)).toThrow(/name "a" is already used/)
  })

  it('is not asked where it does not matter', () => {
    const never: PlanHost = { ability: () => expect.unreachable() }
    for (const text of ['-m 1G', '-device virtio-serial', '-help -virtioserial null', '-M none -virtioserial null'])
      expect(planQemu(words(text), never).passThrough).toBeTypeOf('string')
  })

  it.each(['-virtioserial null,transport=vfio-user', '-virtioserial-device id=a'])('refuses %s', (text) => {
    expect(() => planQemu(words(text), OLD)).toThrow(/QEMU 7\.2\.22 is too old/)
  })
})

describe('transport=qemu', () => {
  it('goes beside ports on our device', () => {
    const text = '-virtioserial null,name=a,transport=qemu -virtioserial null,name=b'
    const plan = planQemu(words(text), NEW)
    expect(plan.devices).toMatchObject([{ id: 'vmchannel', ports: [{ name: 'b', id: 1 }] }])
    expect(plan.warnings).toEqual([])
    expect(jsonOf(argsOf(text, NEW))).toMatchObject([
      { driver: 'vfio-user-pci', id: 'vmchannel' },
      { driver: 'virtio-serial-pci', id: 'vmchannel1' },
      { name: 'a', nr: 1, bus: 'vmchannel1.0' },
    ])
    expect(() => planQemu(words(text.replace('=b', '=a')), NEW)).toThrow(/name "a" is already used/)
  })

  it('may be migrated, and needs no memory of ours', () => {
    const text = '-virtioserial null,transport=qemu -only-migratable -incoming defer'
    expect(planQemu(words(text), NEW).passThrough).toBeTypeOf('string')
    expect(() => planQemu(words(text.replace('=qemu', '=auto')), NEW)).toThrow(/-only-migratable/)
  })

  it('takes place and size from -virtioserial-device', () => {
    const text = '-virtioserial null,nr=40,transport=qemu -virtioserial-device id=vs,bus=pcie.0,addr=05.0'
    expect(jsonOf(argsOf(text, NEW))[0]).toEqual({
      ...{ driver: 'virtio-serial-pci', id: 'vs', max_ports: 41, bus: 'pcie.0', addr: '05.0' },
    })
  })

  it('hands descriptors on to QEMU', () => {
    const plan = planQemu(words('-virtioserial unix:fd=7,transport=qemu'), NEW)
    expect(plan.mentionedFds).toEqual([7])
    expect(plan.takenFds).toEqual([])
  })

  it.each([
    ['unix:/a,policy=discard', /policy=discard has no effect .*holds up the guest/],
    ['unix:/a,on-close=keep', /on-close=keep has no effect/],
    ['unix:/a,half-close-ms=1', /half-close-ms has no effect/],
    ['unix:/a,mode=0660', /mode has no effect .*umask/],
    ['pty,console=on,cols=80,rows=24', /cols and rows has no effect|cols and rows/],
    ['pty,console=on,policy=discard', /policy=discard has no effect .*is lost/],
  ])('says what %s loses', (spec, line) => {
    const { warnings } = planQemu(words(`-virtioserial ${spec},transport=qemu`), NEW)
    expect(warnings).toEqual([expect.stringMatching(line)])
    expect(warnings[0]).toContain(`-virtioserial ${spec}`)
  })

  it.each([
    ['attach', NEW, /attach leads to a device process/],
    ['pty:/link', OLD, /QEMU 7\.2\.22 makes no link to a pty/],
    ['file:/a,input-path=/b', OLD, /QEMU 7\.2\.22 has no input-path/],
  ])('refuses %s, which would lead nowhere', (spec, host, message) => {
    expect(() => planQemu(words(`-virtioserial ${spec},transport=qemu`), host)).toThrow(message)
  })
})

describe('transport=usernet', () => {
  const NET =
    '-netdev user,id=vmchannel-net-n,net=10.118.109.0/24,restrict=on,guestfwd=tcp:10.118.109.100:7644-chardev:vmchannel-net-c'
  const CARD =
    '{"driver":"virtio-net-pci","id":"vmchannel-net","netdev":"vmchannel-net-n","mac":"52:54:00:76:6d:63","romfile":""}'

  it.each([OLD, NEW])('is a network of its own, without shared memory', (host) => {
    const plan = planQemu(words('-nodefaults -virtioserial null,name=a,transport=usernet'), host)
    expect(plan.warnings).toEqual([])
    expect(plan.devices).toMatchObject([{ transport: 'usernet', ports: [{ name: 'a', id: 1 }] }])
    const chardev = '-chardev socket,id=vmchannel-net-c,path=/run/a,,b'
    expect(plan.qemuArgs(['/run/a,b']).join(' ')).toBe(`-nodefaults ${chardev} ${NET} -device ${CARD}`)
  })

  it.each([
    ['', true],
    ['-nodefaults', false],
    ['-nic none', false],
    ['-netdev user,id=n', false],
    ['-net none', false],
  ])('leaves the guest the network it has: %s', (text, added) => {
    const args = argsOf(`${text} -virtioserial null,transport=usernet`, NEW)
    expect(args.join(' ').includes('-nic user')).toBe(added)
  })

  it('goes beside the others, and migrates as far as it is concerned', () => {
    const text =
      '-virtioserial null,transport=usernet -virtioserial null,transport=qemu -virtioserial null,transport=vfio-user'
    const plan = planQemu(words(text), NEW)
    expect(plan.devices.map(({ id, transport }) => `${id} ${transport}`)).toEqual([
      'vmchannel vfio-user',
      'vmchannel-net usernet',
    ])
    expect(jsonOf(argsOf(text, NEW)).map(({ driver }) => driver)).toEqual([
      'vfio-user-pci',
      'virtio-net-pci',
      'virtio-serial-pci',
      'virtserialport',
    ])
    expect(planQemu(words('-virtioserial null,transport=usernet -incoming defer'), NEW).devices).toHaveLength(1)
  })

  it('keeps devices of QEMU with QEMU where ours cannot be', () => {
    const text = '-object memory-backend-file,id=m,size=1G,mem-path=/x,share=off -machine memory-backend=m -m 1G'
    const serial = '-device virtio-serial -chardev null,id=c -device virtserialport,chardev=c,name=a'
    const plan = planQemu(words(`${text} ${serial} -virtioserial null,transport=usernet`), NEW)
    expect(plan.devices).toHaveLength(1)
    expect(plan.warnings).toEqual([expect.stringMatching(/stays with QEMU/)])
    expect(plan.qemuArgs(['/s']).join(' ')).toContain(serial)
  })
})

it.each([
  'unix:/a',
  'unix:/a,,b,server=on,wait=on',
  'unix:/a,server=off',
  'unix:/a,server=off,reconnect-ms=1500',
  'unix:fd=5',
  'tcp:127.0.0.1:4555,nodelay=off',
  'tcp:[::1]:4555,ipv6=on,ipv4=off',
  'tcp:4555,server=off,reconnect=3',
  'pty',
  'pty:/link',
  'stdio,signal=off',
  'file:/a,append=on,input-path=/b',
  'pipe:/a',
  'null',
])('%s is the same -chardev there and back', (source) => {
  const spec = parseChardevSpec(source, 'port')
  const { option } = toQemuChardev(spec, 'c', '11.1.3', 'port')
  const parsed = parseOptionString(option, { implied: 'backend', json: false, argument: '-chardev' })
  const back = convertChardev(parsed, { umask: undefined, stdioTaken: false })
  // What QEMU has to be told, since its defaults are others than ours.
  const usual = { ...('server' in spec || spec.kind === 'unix' || spec.kind === 'tcp' ? { server: true } : {}) }
  expect(back).toEqual({ spec: expect.objectContaining({ ...usual, ...spec }) })
})

it('writes reconnect in seconds for an old QEMU', () => {
  const spec = parseChardevSpec('unix:/a,server=off,reconnect-ms=1500', 'port')
  expect(toQemuChardev(spec, 'c', '7.2.22', 'port').option).toBe('socket,id=c,path=/a,server=off,reconnect=2')
})

describe('the word', () => {
  it.each([
    ['unix:/a', { transport: 'auto', rest: 'unix:/a' }],
    ['unix:/a,,b,transport=qemu,name=x', { transport: 'qemu', rest: 'unix:/a,,b,name=x' }],
  ])('%s', (source, expected) => {
    expect(takeTransport(source, 'port')).toEqual(expected)
  })
  it.each(['null,transport=', 'null,transport', 'null,transport=QEMU', 'null,transport=qemu,transport=auto'])(
    'refuses %s',
    (source) => {
      expect(() => takeTransport(source, '-virtioserial')).toThrow(/^-virtioserial: transport/)
    },
  )
})
