/** What becomes of command lines as people and programs really write them. */
import { describe, expect, it } from 'vitest'
import { planQemu, type PlanHost } from '../../src/qemu/plan.ts'

/** Splits at white space; none of these has any inside a word. */
const words = (text: string): string[] => text.trim().split(/\s+/)
const plan = (text: string, host?: PlanHost) => planQemu(words(text), host)
const argsOf = (text: string, host?: PlanHost): string[] => {
  const made = plan(text, host)
  return made.qemuArgs(made.devices.map((_, index) => `/run/d${index}.sock`))
}
/** The vfio-user-pci devices that QEMU gets. */
const devicesOf = (args: string[]): unknown[] =>
  args.filter((word) => word.includes('vfio-user-pci')).map((word) => JSON.parse(word) as unknown)

const LIBGUESTFS = `-global virtio-blk-pci.scsi=off -no-user-config -nodefaults -display none -machine accel=tcg,graphics=off
  -cpu max,la57=off -m 1280 -no-reboot -rtc driftfix=slew -global kvm-pit.lost_tick_policy=discard -kernel /k -initrd /i
  -object rng-random,filename=/dev/urandom,id=rng0 -device virtio-rng-pci,rng=rng0 -device virtio-scsi-pci,id=scsi
  -drive file=/d,cache=unsafe,format=raw,id=hd0,if=none -device scsi-hd,drive=hd0 -device virtio-serial-pci -serial stdio
  -chardev socket,path=/tmp/libguestfsXX/guestfsd.sock,id=channel0
  -device virtserialport,chardev=channel0,name=org.libguestfs.channel.0 -append panic=1`

it('a device behind a virtual IOMMU says so', () => {
  const [device] = plan('-device intel-iommu,caching-mode=on -virtioserial pty').devices
  expect(device).toMatchObject({ iommuPlatform: true })
  const carried = plan(
    '-device virtio-iommu-pci -device virtio-serial,iommu_platform=on -chardev pty,id=c -device virtserialport,chardev=c',
  )
  expect(carried).toMatchObject({ warnings: [], devices: [{ iommuPlatform: true }] })
  expect(() => plan('-device intel-iommu,intremap=on -virtioserial pty')).toThrow(/without caching-mode=on/)
})

describe('libguestfs', () => {
  it('has its channel carried: a client of the socket that it listens on', () => {
    const made = plan(LIBGUESTFS)
    expect(made.passThrough).toBeUndefined()
    expect(made.warnings).toEqual([])
    expect(made.devices).toEqual([
      {
        id: 'vmchannel',
        origin: '-device virtio-serial-pci',
        transport: 'vfio-user',
        vectors: 2,
        maxPorts: 31,
        ports: [
          {
            chardev: { kind: 'unix', path: '/tmp/libguestfsXX/guestfsd.sock', server: false },
            name: 'org.libguestfs.channel.0',
            id: 1,
          },
        ],
      },
    ])
  })

  it('leaves every other word as it was, the device where it was', () => {
    const vfio = '{"driver":"vfio-user-pci","id":"vmchannel","socket":{"type":"unix","path":"/run/d0.sock"}}'
    const expected = words(LIBGUESTFS)
      .join(' ')
      .replace('-device virtio-serial-pci', `-device ${vfio}`)
      .replace(' -chardev socket,path=/tmp/libguestfsXX/guestfsd.sock,id=channel0', '')
      .replace(' -device virtserialport,chardev=channel0,name=org.libguestfs.channel.0', '')
    expect(argsOf(LIBGUESTFS).join(' ')).toBe(
      `${expected} -object memory-backend-memfd,id=vmchannel-ram,size=${1280 * 2 ** 20},share=on` +
        ' -machine memory-backend=vmchannel-ram',
    )
  })

  it.each([
    '-display none -help',
    '-display none -machine accel=kvm:tcg -device ?',
    '-display none -machine accel=kvm:tcg -qmp stdio',
  ])('is left alone when it asks: %s', (text) => {
    expect(plan(text).passThrough).toBeTypeOf('string')
    expect(argsOf(text)).toEqual(words(text))
  })
})

const LIBVIRT = `-name guest=vm,debug-threads=on -S -object {"qom-type":"secret","id":"masterKey0","format":"raw","file":"/k"}
  -machine pc-q35-7.2,usb=off,dump-guest-core=off,memory-backend=pc.ram -accel tcg -cpu qemu64 -m size=524288k
  -object {"qom-type":"memory-backend-ram","id":"pc.ram","size":536870912} -overcommit mem-lock=off -smp 1,sockets=1
  -uuid 4dea22b3-1d52-d8f3-2516-782e98a23fa0 -no-user-config -nodefaults
  -chardev socket,id=charmonitor,path=/m.sock,server=on,wait=off -mon chardev=charmonitor,id=monitor,mode=control
  -device {"driver":"pcie-root-port","port":16,"chassis":1,"id":"pci.1","bus":"pcie.0","multifunction":true,"addr":"0x2"}
  -device {"driver":"virtio-serial-pci","id":"virtio-serial0","bus":"pci.1","addr":"0x0"}
  -chardev pty,id=charserial0 -device {"driver":"isa-serial","chardev":"charserial0","id":"serial0","index":0}
  -chardev socket,id=charchannel0,path=/var/lib/libvirt/qemu/org.qemu.guest_agent.0,server=on,wait=off
  -device {"driver":"virtserialport","bus":"virtio-serial0.0","nr":1,"chardev":"charchannel0","id":"channel0","name":"org.qemu.guest_agent.0"}`

describe('libvirt', () => {
  it('has its agent channel carried, on the same bus and address', () => {
    const args = argsOf(LIBVIRT)
    expect(plan(LIBVIRT).warnings).toEqual([])
    expect(plan(LIBVIRT).devices[0]).toMatchObject({
      id: 'virtio-serial0',
      ports: [{ id: 1, name: 'org.qemu.guest_agent.0', chardev: { kind: 'unix', server: true, wait: false } }],
    })
    expect(devicesOf(args)).toEqual([
      {
        driver: 'vfio-user-pci',
        id: 'virtio-serial0',
        bus: 'pci.1',
        addr: '0x0',
        socket: { type: 'unix', path: '/run/d0.sock' },
      },
    ])
    expect(args).toContain('{"qom-type":"memory-backend-memfd","id":"pc.ram","size":536870912,"share":true}')
    expect(args.join(' ')).not.toContain('charchannel0')
    expect(args.join(' ')).toContain('-chardev pty,id=charserial0')
    expect(args.join(' ')).not.toContain('vmchannel-ram')
  })

  it('keeps the whole device in QEMU as soon as SPICE is on it', () => {
    const text =
      `${LIBVIRT} -chardev spicevmc,id=charchannel1,name=vdagent ` +
      '-device {"driver":"virtserialport","bus":"virtio-serial0.0","nr":2,"chardev":"charchannel1","name":"com.redhat.spice.0"}'
    const made = plan(text)
    expect(made.passThrough).toBeTypeOf('string')
    expect(made.warnings).toHaveLength(1)
    expect(made.warnings[0]).toMatch(/virtio-serial0.* stays with QEMU: .*-chardev spicevmc,id=charchannel1: .*SPICE/)
    expect(argsOf(text)).toEqual(words(text))
  })

  it('is left alone when it asks what this QEMU can do', () => {
    const text =
      '-S -no-user-config -nodefaults -nographic -machine none,accel=kvm:tcg -qmp unix:/q,server=on,wait=off -pidfile /p -daemonize'
    expect(plan(text).passThrough).toMatch(/none/)
    expect(argsOf(text)).toEqual(words(text))
  })

  it('refuses to restore a machine', () => {
    expect(() => plan(`${LIBVIRT} -incoming defer`)).toThrow(/-incoming defer: QEMU saves and restores/)
  })
})

const PROXMOX = `-id 100 -name vm,debug-threads=on -chardev socket,id=qmp,path=/100.qmp,server=on,wait=off
  -mon chardev=qmp,mode=control -pidfile /100.pid -daemonize -smp 1 -nodefaults -cpu qemu64 -m 512 -readconfig /q35.cfg
  -device vmgenid,guid=c773c261-d800-4348-9f5d-167fadd53cf8 -device VGA,id=vga,bus=pci.0,addr=0x2
  -chardev socket,path=/100.qga,server=on,wait=off,id=qga0 -device virtio-serial,id=qga0,bus=pci.0,addr=0x8
  -device virtserialport,chardev=qga0,name=org.qemu.guest_agent.0 -device virtio-balloon-pci,id=b,bus=pci.0,addr=0x3
  -device virtio-net-pci,netdev=net0,bus=pci.0,addr=0x12 -netdev user,id=net0 -machine type=pc+pve0`

describe('proxmox', () => {
  it('has its agent channel carried; the port without bus= is on the only device', () => {
    const made = plan(PROXMOX)
    expect(made.warnings).toEqual([])
    expect(made.devices).toMatchObject([{ id: 'qga0', ports: [{ id: 1, name: 'org.qemu.guest_agent.0' }] }])
    expect(devicesOf(argsOf(PROXMOX))).toMatchObject([{ id: 'qga0', bus: 'pci.0', addr: '0x8' }])
    expect(argsOf(PROXMOX)).toContain(`memory-backend-memfd,id=vmchannel-ram,size=${512 * 2 ** 20},share=on`)
  })

  it('takes memory and machine from the -readconfig file into account', () => {
    const host: PlanHost = { readFile: () => '[memory]\nsize = "256"\n[machine]\ntype = "microvm"\n' }
    expect(() => plan('-readconfig f -virtioserial pty', host)).toThrow(/microvm/)
    const memory: PlanHost = { readFile: () => '[memory]\nsize = "256"\n' }
    expect(argsOf('-readconfig f -virtioserial pty', memory)).toContain(
      `memory-backend-memfd,id=vmchannel-ram,size=${2 ** 28},share=on`,
    )
  })
})

describe('-virtioserial', () => {
  it('puts all ports on one device at the end, listening', () => {
    const text = '-virtioserial unix:/a,name=x -m 1G -virtioserial pty,console=on --virtioserial unix:/b d.img'
    const made = plan(text)
    expect(made.devices).toMatchObject([
      {
        origin: '-virtioserial',
        maxPorts: 31,
        ports: [
          { id: 1, name: 'x', chardev: { kind: 'unix', path: '/a' } },
          { id: 0, console: true, chardev: { kind: 'pty' } },
          { id: 2, chardev: { kind: 'unix', path: '/b' } },
        ],
      },
    ])
    expect(made.devices[0]?.ports[2]?.name).toBeUndefined()
    expect(argsOf(text)).toEqual([
      '-m',
      '1G',
      'd.img',
      '-object',
      `memory-backend-memfd,id=vmchannel-ram,size=${2 ** 30},share=on`,
      '-machine',
      'memory-backend=vmchannel-ram',
      '-device',
      '{"driver":"vfio-user-pci","id":"vmchannel","socket":{"type":"unix","path":"/run/d0.sock"}}',
    ])
  })

  it('takes place and size of the device from -virtioserial-device', () => {
    const text = '-virtioserial-device id=vs,bus=pcie.0,addr=05.0,max_ports=3 -virtioserial null'
    expect(plan(text).devices).toMatchObject([{ id: 'vs', maxPorts: 3 }])
    expect(devicesOf(argsOf(text))).toMatchObject([{ id: 'vs', bus: 'pcie.0', addr: '05.0' }])
    expect(() => plan('-virtioserial-device adr=5')).toThrow(/-virtioserial-device adr=5: unknown option adr/)
  })

  it('makes the device big enough for its ports', () => {
    expect(plan('-virtioserial null,nr=100').devices[0]?.maxPorts).toBe(101)
    expect(plan(Array(40).fill('-virtioserial null').join(' ')).devices[0]?.maxPorts).toBe(41)
  })

  it('stands beside a device that is carried', () => {
    const text = `${LIBGUESTFS} -virtioserial null,name=mine`
    expect(plan(text).devices.map((device) => device.id)).toEqual(['vmchannel', 'vmchannel1'])
    expect(devicesOf(argsOf(text))).toHaveLength(2)
  })

  it('goes from the line of a run that is left alone', () => {
    expect(argsOf('-virtioserial null -device help')).toEqual(['-device', 'help'])
    expect(argsOf('-M none -virtioserial null -S')).toEqual(['-M', 'none', '-S'])
  })

  it.each([
    ['-virtioserial', 'ERR_VMCHANNEL_USAGE', /needs a port/],
    ['-virtioserial nonsense', 'ERR_VMCHANNEL_USAGE', /nonsense/],
    ['-virtioserial null,nr=0', 'ERR_VMCHANNEL_PORT', /port number 0 is reserved/],
    [
      '-virtioserial null,nr=5 -virtioserial pty,nr=5',
      'ERR_VMCHANNEL_IN_USE',
      /-virtioserial pty,nr=5: port number 5 .*null/,
    ],
    ['-virtioserial null,name=a -virtioserial pty,name=a', 'ERR_VMCHANNEL_IN_USE', /name "a" is already used/],
    [
      `${LIBGUESTFS} -virtioserial null,name=org.libguestfs.channel.0`,
      'ERR_VMCHANNEL_IN_USE',
      /already used by -device/,
    ],
    [
      '-virtioserial-device max_ports=2 -virtioserial null,nr=2',
      'ERR_VMCHANNEL_PORT',
      /out of range.*2 ports \(0 to 1\)/,
    ],
    ['-virtioserial null -loadvm x', 'ERR_VMCHANNEL_USAGE', /-loadvm x/],
    ['-virtioserial null -incoming tcp:0:1', 'ERR_VMCHANNEL_USAGE', /-incoming/],
    ['-virtioserial null -only-migratable', 'ERR_VMCHANNEL_USAGE', /-only-migratable/],
    ['-virtioserial null -M isapc', 'ERR_VMCHANNEL_USAGE', /isapc has no PCI/],
    ['-virtioserial null -M microvm', 'ERR_VMCHANNEL_USAGE', /microvm has no PCI/],
  ])('refuses %s', (text, code, message) => {
    expect(() => plan(text)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }))
  })

  it('takes microvm with PCI', () => {
    expect(plan('-virtioserial null -M microvm,pcie=on').devices).toHaveLength(1)
  })
})

it.each([
  '-h',
  '--help',
  '-version',
  '-machine help',
  '-M q35,help',
  '-device virtio-serial-pci,help -virtioserial',
  '-cpu help',
  '-accel ?',
  '-object memory-backend-ram,help',
  '-nic model=help',
  '-netdev help',
  '-d help',
  'disk.img',
  '-m 512 -hda disk.img',
  '-device virtio-serial-pci',
])('leaves alone: %s', (text) => {
  expect(plan(text).passThrough).toBeTypeOf('string')
  expect(plan(text).warnings).toEqual([])
  expect(argsOf(text)).toEqual(words(text).filter((word) => word !== '-virtioserial'))
})

it.each(['-append help', '-kernel ?', '-hda help,x'])('does not take %s for a question', (text) => {
  expect(plan(`${text} -virtioserial null`).passThrough).toBeUndefined()
})

it('wants one socket for each device', () => {
  expect(() => plan('-virtioserial null').qemuArgs([])).toThrow(RangeError)
})
