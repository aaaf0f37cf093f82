import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readConfigFile, splitCommandLine, withConfigFiles, withoutOwn } from '../../src/qemu/command-line.ts'
import { WITH_ARGUMENT, WITHOUT_ARGUMENT } from '../../src/qemu/option-table.ts'

const names = (argv: string[]): (string | undefined)[] => splitCommandLine(argv).map((argument) => argument.name)

describe('splitCommandLine', () => {
  it('knows which options take an argument, with one dash or two', () => {
    expect(names(['-S', '--device', 'x', '-m', '512', 'disk.img', '-snapshot'])).toEqual([
      'S',
      'device',
      'm',
      undefined,
      'snapshot',
    ])
  })

  it('takes an argument even where it looks like an option', () => {
    expect(splitCommandLine(['-append', '-S', '-S'])).toEqual([
      { name: 'append', value: '-S', raw: ['-append', '-S'] },
      { name: 'S', value: undefined, raw: ['-S'] },
    ])
  })

  it('reads -M as machine and -h as help', () => {
    expect(names(['-M', 'pc', '-h'])).toEqual(['machine', 'help'])
  })

  it('lets an option of a newer QEMU keep its argument', () => {
    expect(names(['-new-thing', 'value', '-new-switch', '-S'])).toEqual(['new-thing', 'new-switch', 'S'])
  })

  it('leaves a missing argument to QEMU', () => {
    expect(splitCommandLine(['-device'])).toEqual([{ name: 'device', value: undefined, raw: ['-device'] }])
  })

  it('loses nothing', () => {
    const word = fc.oneof(
      fc.constantFrom(...WITH_ARGUMENT, ...WITHOUT_ARGUMENT).map((name) => `-${name}`),
      fc.constantFrom('--device', '-', '--', '', 'disk.qcow2'),
      fc.string(),
    )
    fc.assert(
      fc.property(fc.array(word), (argv) => {
        expect(splitCommandLine(argv).flatMap((argument) => argument.raw)).toEqual(argv)
      }),
    )
  })

  it('takes our options out and nothing else', () => {
    const argv = [
      '-virtioserial',
      'unix:/a',
      '-m',
      '1',
      '--virtio-serial',
      'pty',
      '-virtioserial-device',
      'addr=5',
      'd',
    ]
    expect(withoutOwn(splitCommandLine(argv))).toEqual(['-m', '1', 'd'])
  })
})

it('knows no option both ways', () => {
  expect([...WITH_ARGUMENT].filter((name) => WITHOUT_ARGUMENT.has(name))).toEqual([])
})

describe('-readconfig', () => {
  const text = `# proxmox
[device "ehci"]
  driver = "ich9-usb-ehci1"
  addr = "1d.7"

[memory]
  size = "2048"
nonsense
[machine]
  type = "q35"
`
  it('adds its sections behind the option, without words of their own', () => {
    const list = withConfigFiles(splitCommandLine(['-readconfig', 'f.cfg', '-S']), () => text)
    expect(list.map((argument) => [argument.name, argument.raw])).toEqual([
      ['readconfig', ['-readconfig', 'f.cfg']],
      ['device', []],
      ['m', []],
      ['machine', []],
      ['S', ['-S']],
    ])
    expect(list[1]?.parsed?.entries[0]).toEqual({ key: 'id', value: 'ehci' })
  })

  it('copes with a file that cannot be read, and with any text', () => {
    expect(withConfigFiles(splitCommandLine(['-readconfig', 'f']), () => undefined)).toHaveLength(1)
    fc.assert(
      fc.property(fc.string(), (any) => {
        readConfigFile(any, 'f')
      }),
    )
  })
})
