/** QEMU's own virtio-serial devices: what is carried, what stays with QEMU and why. */
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { VmchannelError } from '../../src/errors.ts'
import { planQemu } from '../../src/qemu/plan.ts'

const words = (text: string): string[] => text.trim().split(/\s+/)
const plan = (text: string) => planQemu(words(text), { umask: 0o022 })

/** One port with that -chardev. */
const withChardev = (chardev: string): string =>
  `-chardev ${chardev},id=c -device virtio-serial-pci,id=s -device virtserialport,bus=s.0,chardev=c`

describe('a -chardev becomes', () => {
  it.each([
    ['socket,path=/a,server=on,wait=off', { kind: 'unix', path: '/a', server: true, wait: false, mode: 0o755 }],
    ['socket,path=/a,server=on', { kind: 'unix', path: '/a', server: true, wait: true, mode: 0o755 }],
    ['socket,path=/a,,b,server,nowait', { kind: 'unix', path: '/a,b', server: true, wait: false, mode: 0o755 }],
    ['socket,path=/a,reconnect=2', { kind: 'unix', path: '/a', server: false, reconnectMs: 2000 }],
    ['socket,path=/a,reconnect-ms=100,wait=off', { kind: 'unix', path: '/a', server: false, reconnectMs: 100 }],
    [
      'socket,host=localhost,port=4555,server=on,wait=off,ipv4=on,ipv6=off',
      {
        kind: 'tcp',
        host: 'localhost',
        port: 4555,
        server: true,
        wait: false,
        ipv4: true,
        ipv6: false,
        nodelay: false,
      },
    ],
    [
      'socket,host=,port=1,server=on,wait=off',
      { kind: 'tcp', host: '0.0.0.0', port: 1, server: true, wait: false, nodelay: false },
    ],
    ['socket,host=h,port=1,nodelay=on', { kind: 'tcp', host: 'h', port: 1, server: false, nodelay: true }],
    ['socket,host=h,port=1,nodelay', { kind: 'tcp', host: 'h', port: 1, server: false, nodelay: true }],
    ['pty', { kind: 'pty' }],
    ['pty,path=/link', { kind: 'pty', path: '/link' }],
    ['stdio,signal=off', { kind: 'stdio', signal: false }],
    ['file,path=/dev/stdout', { kind: 'file', path: `/proc/${process.pid}/fd/1` }],
    ['file,path=/proc/self/fd/7,append=on', { kind: 'file', path: `/proc/${process.pid}/fd/7`, append: true }],
    ['file,path=/log,append=on,input-path=/in', { kind: 'file', path: '/log', append: true, inputPath: '/in' }],
    ['pipe,path=/p', { kind: 'pipe', path: '/p' }],
    ['null,mux=off', { kind: 'null' }],
  ])('%s', (chardev, expected) => {
    const made = plan(withChardev(chardev))
    expect(made.warnings).toEqual([])
    expect(made.devices[0]?.ports).toEqual([{ chardev: expected, id: 1 }])
  })
})

describe('the device stays with QEMU, with one line that says why, for', () => {
  it.each([
    [withChardev('spicevmc,name=vdagent'), /SPICE/],
    [withChardev('spiceport,name=x'), /SPICE/],
    [withChardev('qemu-vdagent,clipboard=on'), /clipboard/],
    [withChardev('vc'), /display/],
    [withChardev('ringbuf'), /buffer inside QEMU/],
    [withChardev('udp,host=h,port=1'), /no back end/],
    [withChardev('serial,path=/dev/ttyS0'), /no back end/],
    [withChardev('null,mux=on'), /mux=on/],
    [withChardev('pty,logfile=/l'), /logfile/],
    [withChardev('pty,future=1'), /option future is not known/],
    [withChardev('socket,path=/a,telnet=on,server=on'), /telnet/],
    [withChardev('socket,path=/a,websocket=on,server=on'), /websocket/],
    [withChardev('socket,path=/a,abstract=on'), /abstract/],
    [withChardev('socket,host=h,port=1,tls-creds=t'), /tls-creds/],
    [withChardev('socket,host=h,port=1,to=5,server=on'), /to is not supported/],
    [withChardev('socket,host=h,port=ssh'), /port=ssh is not a number/],
    [withChardev('socket,fd=name,server=on'), /fd=name/],
    [withChardev(`socket,path=/${'a'.repeat(120)}`), /107/],
    [withChardev('file,path=/dev/fdset/1'), /fdset/],
    [`${withChardev('stdio')} -serial stdio`, /standard input and output/],
    [`${withChardev('stdio')} -nographic`, /standard input and output/],
    [`${withChardev('pty')} -mon chardev=c`, /chardev c is also used by -mon chardev=c/],
    [`${withChardev('pty')} -serial chardev:c`, /also used by -serial chardev:c/],
    [`${withChardev('pty')} -netdev user,id=n,guestfwd=tcp:10.0.2.100:1-chardev:c`, /also used by -netdev/],
    [`${withChardev('pty')} -device {"driver":"isa-serial","chardev":"c"}`, /also used by -device/],
    [`${withChardev('pty')} -object colo-compare,primary_in=c`, /also used by -object/],
    [`${withChardev('pty')} -chardev null,id=c`, /not exactly one/],
    [`${withChardev('pty')} -set device.s.max_ports=4`, /-set changes device s/],
    [`${withChardev('pty')} -set chardev.c.path=4`, /-set changes chardev c/],
    ['-device virtio-serial -device virtserialport', /has no chardev/],
    ['-device virtio-serial -device virtserialport,chardev=x', /not exactly one -chardev/],
    ['-device virtio-serial-device -chardev null,id=c -device virtconsole,chardev=c', /not a PCI device/],
    ['-device virtio-serial,disable-modern=on -chardev null,id=c -device virtconsole,chardev=c', /old interface/],
    ['-device intel-iommu -device virtio-serial -chardev null,id=c -device virtconsole,chardev=c', /caching-mode=on/],
    ['-device amd-iommu -device virtio-serial -chardev null,id=c -device virtconsole,chardev=c', /dma-remap=on/],
    ['-device virtio-serial,max_ports=600 -chardev null,id=c -device virtconsole,chardev=c', /out of range/],
    ['-device virtio-serial -chardev null,id=c -device virtconsole,chardev=c,foo=1', /option foo/],
    ['-device virtio-serial -chardev null,id=c -device virtconsole,chardev=c,nr=x', /nr is not a number/],
    ['-device virtio-serial -chardev null,id=c -device virtconsole,chardev=c,name=a/b', /a port name/],
    ['-device virtio-serial,addr=4 -device virtio-net-pci -chardev null,id=c -device virtconsole,chardev=c', /slot 4/],
    ['-device virtio-serial -chardev null,id=c -device virtconsole,chardev=c -M microvm', /no PCI bus/],
    ['-device virtio-serial -chardev null,id=c -device virtconsole,chardev=c -only-migratable', /only-migratable/],
    [
      '-device virtio-serial -chardev null,id=c -device virtconsole,chardev=c -object memory-backend-memfd,id=m,size=1G,share=off -M q35,memory-backend=m',
      /share=off keeps this memory/,
    ],
  ])('%s', (text, why) => {
    const made = plan(text)
    expect(made.passThrough).toBeTypeOf('string')
    expect(made.warnings).toHaveLength(1)
    expect(made.warnings[0]).toMatch(why)
    expect(made.warnings[0]).toMatch(/^-device virtio-serial.* stays with QEMU: /)
    expect(made.qemuArgs([])).toEqual(words(text))
  })

  it('fd=N only as long as no back end of ours takes a descriptor', () => {
    const made = plan(withChardev('socket,fd=22,server=on,wait=off'))
    if (made.passThrough === undefined) {
      expect(made.devices[0]?.ports[0]?.chardev).toMatchObject({ fd: 22, server: true, wait: false })
      expect(made.takenFds).toEqual([22])
    } else {
      expect(made.warnings[0]).toMatch(/fd/)
    }
  })
})

describe('several devices', () => {
  const two = '-chardev null,id=c1 -chardev null,id=c2 -device virtio-serial,id=a -device virtio-serial,id=b'

  it('have their ports by bus=, and without it on the newest', () => {
    const made = plan(
      `${two} -device virtserialport,bus=a.0,chardev=c1,name=x -device virtserialport,chardev=c2,name=y`,
    )
    expect(made.devices).toMatchObject([
      { id: 'a', ports: [{ id: 1, name: 'x' }] },
      { id: 'b', ports: [{ id: 1, name: 'y' }] },
    ])
  })

  it('are carried and kept one by one', () => {
    const made = plan(
      `-chardev null,id=c1 -chardev vc,id=c2 -device virtio-serial,id=a -device virtserialport,chardev=c1 ` +
        `-device virtio-serial,id=b -device virtserialport,chardev=c2`,
    )
    expect(made.devices.map((device) => device.id)).toEqual(['a'])
    expect(made.warnings).toHaveLength(1)
    expect(made.warnings[0]).toMatch(/id=b stays with QEMU/)
    expect(made.qemuArgs(['/s']).join(' ')).toMatch(
      /^-chardev vc,id=c2 -device \{"driver":"vfio-user-pci","id":"a".*\} -device virtio-serial,id=b -device virtserialport,chardev=c2 -object /,
    )
  })

  it('are left to QEMU where only QEMU knows which is meant', () => {
    const made = plan(
      '-chardev null,id=c1 -device virtio-serial,bus=pci.1 -device virtio-serial,bus=pci.2 -device virtserialport,chardev=c1',
    )
    expect(made.warnings).toHaveLength(2)
    expect(made.warnings[0]).toMatch(/does not say bus=/)
  })

  it('are named by number where they have no id', () => {
    const made = plan(
      '-chardev null,id=c1 -device virtio-serial -device virtio-serial -device virtserialport,bus=virtio-serial-bus.0,chardev=c1',
    )
    expect(made.devices).toMatchObject([{ ports: [{ id: 1 }] }])
    expect(made.qemuArgs(['/s'])).toContain('virtio-serial')
  })

  it('share one space of names with what stays in QEMU', () => {
    const text =
      '-chardev null,id=c1 -chardev vc,id=c2 -device virtio-serial,id=a -device virtserialport,chardev=c1,name=n ' +
      '-device virtio-serial,id=b -device virtserialport,chardev=c2,name=n'
    expect(() => plan(text)).toThrow(/port name "n" is already used/)
  })
})

/** The numbers of ports on one device of four; `@` stands for a chardev. */
const ports = (text: string): (number | undefined)[] => {
  const list = words(text)
  const chardevs = list.map((_, index) => `-chardev null,id=c${index}`).join(' ')
  const devices = list.map((port, index) => `-device ${port.replace('@', `chardev=c${index}`)}`).join(' ')
  return (
    plan(`${chardevs} -device virtio-serial,id=s,max_ports=4 ${devices}`).devices[0]?.ports.map((port) => port.id) ?? []
  )
}

describe('port numbers', () => {
  // All seen on QEMU 11.1.3 ("info qtree").
  it.each([
    ['virtserialport,@ virtserialport,@', [1, 2]],
    ['virtconsole,@ virtserialport,@ virtconsole,@', [0, 1, 2]],
    ['virtserialport,@ virtconsole,@ virtconsole,@', [1, 0, 2]],
    ['virtserialport,nr=0x2,@ virtserialport,@ virtserialport,@', [2, 1, 3]],
    ['virtserialport,nr=4294967295,@', [1]],
    ['{"driver":"virtserialport","chardev":"c0"} virtserialport,@', [1, 2]],
  ])('%s', (text, expected) => {
    expect(ports(text)).toEqual(expected)
  })

  it('go to the classic form first, as QEMU makes it first', () => {
    const made = plan(
      '-chardev null,id=c0 -chardev null,id=c1 -device virtio-serial,id=s ' +
        '-device {"driver":"virtserialport","chardev":"c0","name":"json"} -device virtserialport,chardev=c1,name=classic',
    )
    expect(made.devices[0]?.ports.map((port) => [port.id, port.name])).toEqual([
      [1, 'classic'],
      [2, 'json'],
    ])
  })

  it.each([
    ['virtserialport,nr=1,@ virtserialport,nr=1,@', /number 1 is already used/, 'IN_USE'],
    ['virtserialport,nr=0,@', /number 0 is reserved/, 'PORT'],
    ['virtserialport,nr=4,@', /out of range, the device has 4 ports \(0 to 3\)/, 'PORT'],
    ['virtserialport,@ virtserialport,@ virtserialport,@ virtserialport,@', /out of range/, 'PORT'],
    ['virtserialport,name=a,@ virtserialport,name=a,@', /name "a" is already used/, 'IN_USE'],
  ])('refuses %s', (text, message, code) => {
    expect(() => ports(text)).toThrow(
      expect.objectContaining({ code: `ERR_VMCHANNEL_${code}`, message: expect.stringMatching(message) }),
    )
  })
})

/** The device that QEMU gets. */
const vfio = (text: string): unknown => {
  const word = plan(text)
    .qemuArgs(['/s'])
    .find((one) => one.includes('vfio-user-pci'))
  return JSON.parse(word ?? 'null') as unknown
}

describe('options of the device', () => {
  const port = '-chardev null,id=c -device virtserialport,chardev=c'
  it('go on to vfio-user-pci with the types of its JSON form', () => {
    expect(
      vfio(`-device virtio-serial,id=s,bus=b,addr=0x1d.1,multifunction=on,acpi-index=3,rombar=0,vectors=4 ${port}`),
    ).toEqual({
      driver: 'vfio-user-pci',
      id: 's',
      bus: 'b',
      addr: '0x1d.1',
      multifunction: true,
      'acpi-index': 3,
      rombar: 0,
      socket: { type: 'unix', path: '/s' },
    })
  })

  // QEMU has 2 where nothing is said, and a guest may not have more to spare.
  it.each([
    ['', '', 2],
    [',vectors=0', '', 0],
    [',vectors=4', '', 4],
    [',vectors=0x41', '', 65],
    [',vectors=1', '', 2], // with MSI-X there are two at least (§4.1.4.3)
    [',vectors=4294967295', '', 32], // QEMU: ports and one
    [',vectors=-1,max_ports=4', '', 5],
    ['', '-global virtio-serial-pci.vectors=8', 8],
    [',vectors=3', '-global driver=virtio-serial-pci,property=vectors,value=8', 3],
    ['', '-global virtio-serial-pci.max_ports=8', 2],
  ])('virtio-serial-pci%s %s: vectors', (given, more, vectors) => {
    expect(plan(`-device virtio-serial-pci${given} ${port} ${more}`).devices).toMatchObject([{ vectors }])
  })

  it('vectors that cannot be leave the device with QEMU', () => {
    for (const given of ['x', '2049'])
      expect(plan(`-device virtio-serial-pci,vectors=${given} ${port}`).warnings).toEqual([
        expect.stringMatching(/stays with QEMU: vectors(=2049 is out of range| is not a number)$/),
      ])
  })

  it('vectors of the device of -virtioserial: its own number, or what is asked for', () => {
    expect(plan('-virtioserial null').devices[0]).not.toHaveProperty('vectors')
    expect(plan('-virtioserial null -virtioserial-device vectors=8').devices).toMatchObject([{ vectors: 8 }])
    const theirs = plan('-virtioserial null,transport=qemu -virtioserial-device vectors=8').qemuArgs([])
    expect(theirs.find((word) => word.includes('virtio-serial-pci'))).toContain('"vectors":8')
  })

  it('are named where nobody follows them', () => {
    expect(plan(`-device virtio-serial,future=1 ${port}`).warnings).toEqual([
      '-device virtio-serial,future=1: option future has no effect on a vmchannel device',
    ])
  })

  it('may come from -global', () => {
    expect(plan(`-global virtio-serial-pci.max_ports=7 -device virtio-serial ${port}`).devices[0]?.maxPorts).toBe(7)
    expect(
      plan(`-global driver=virtio-serial-device,property=max_ports,value=9 -device virtio-serial ${port}`).devices[0]
        ?.maxPorts,
    ).toBe(9)
    expect(
      plan(`-global virtio-serial-pci.max_ports=7 -device virtio-serial,max_ports=2 ${port}`).devices[0]?.maxPorts,
    ).toBe(2)
  })
})

it('tells that a network card moves to another slot', () => {
  const text = '-chardev null,id=c -device virtio-serial -device virtserialport,chardev=c -device e1000,netdev=n'
  expect(plan(text).warnings).toEqual([expect.stringMatching(/^-device e1000,netdev=n: moves to the PCI slot before/)])
  expect(plan(`${text},addr=5`).warnings).toEqual([])
})

it('knows which inherited descriptors the command line speaks of', () => {
  const text =
    '-add-fd set=1,fd=20 -netdev tap,id=n,fds=21:22,vhostfds=23 -netdev {"type":"tap","id":"m","fd":"24"} -incoming fd:25 ' +
    '-netdev stream,id=s,addr.type=fd,addr.str=26 -chardev socket,id=c,fd=27,server=on -device x,addr=30 -append fd=31 -m 32'
  expect(plan(text).mentionedFds).toEqual([20, 21, 22, 23, 24, 25, 26, 27])
})

it('ends every command line in a plan or in an error for a person', () => {
  const word = fc.oneof(
    fc.constantFrom(
      ...words(
        '-device -chardev -object -machine -m -numa -virtioserial -virtioserial-device -set -global -nographic -incoming ' +
          'virtio-serial,id=a virtserialport,chardev=c virtconsole,chardev=c,nr=1 null,id=c pty,id=c null,name=n unix:/x ' +
          'memory-backend-ram,id=m,size=1G memory-backend=m node,memdev=m 512 size=1G {"driver":"virtserialport"} {} {"a": []} ' +
          'device.a.x=1 help addr=5',
      ),
    ),
    fc.string(),
    fc.string().map((text) => `-${text}`),
  )
  fc.assert(
    fc.property(fc.array(word, { maxLength: 12 }), (argv) => {
      try {
        const made = planQemu(argv)
        made.qemuArgs(made.devices.map(() => '/s'))
      } catch (error) {
        expect(error).toBeInstanceOf(VmchannelError)
      }
    }),
    { numRuns: 3000 },
  )
})
