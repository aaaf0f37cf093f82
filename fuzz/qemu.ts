/**
 * QEMU command lines of options that belong together, in any order, with typing errors: planned, or refused with an
 * error for people. What is not ours to change reaches QEMU as it was and in its order; what we made is there once; the
 * names of the VMs are such as a device process takes.
 */

import assert from 'node:assert/strict'
import { vmNames } from '../src/cli/qemu-names.ts'
import { planQemu, type Plan } from '../src/qemu/plan.ts'
import { Random, type Seed } from './random.ts'
import { simple, type FuzzTarget } from './target.ts'
import { mangle, tolerant } from './text.ts'

const CASES = 30
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$/
/** Words that are nobody's but QEMU's. */
const MARK = /mark\d+/

interface Line {
  argv: string[]
  /** What the last -name says, where it says a plain name. */
  name: string | undefined
}

function commandLine(r: Random): Line {
  const argv: string[] = []
  const buses: string[] = []
  let name: string | undefined
  let next = 0
  const id = (): number => (r.chance(70) ? next++ : r.below(next + 1))
  const add = (...words: string[]): void =>
    void argv.push(...(r.chance(95) ? words : words.map((word) => mangle(r, word))))
  for (let i = r.below(14); i > 0; i--) {
    switch (r.below(12)) {
      case 0: {
        const bus = r.pick(['vs', 'vs', 'v'.repeat(40)]) + id()
        buses.push(bus)
        add('-device', `virtio-serial-pci,id=${bus}${r.chance(20) ? `,max_ports=${r.below(600)}` : ''}`)
        break
      }
      case 1:
      case 2:
      case 3: {
        // A port with its chardev, or one that belongs to nothing.
        const chardev = `c${id()}`
        if (r.chance(85))
          add(
            '-chardev',
            r.pick([
              `socket,id=${chardev},path=/tmp/${next},server=on,wait=off`,
              `pty,id=${chardev}`,
              `null,id=${chardev}`,
            ]),
          )
        const bus = r.pick([...buses.map((one) => `,bus=${one}.0`), '', ',bus=vs0.0'])
        const more = r.pick(['', '', `,name=org.${next}`, ',nr=3'])
        if (r.chance(85))
          add('-device', `virt${r.pick(['serialport', 'serialport', 'console'])},chardev=${chardev}${bus}${more}`)
        break
      }
      case 4:
        add(
          '-virtioserial',
          r.pick([
            'unix:/tmp/a.sock,name=a',
            'null',
            `pty,name=p${id()}`,
            'unix:/b,transport=qemu',
            'null,transport=usernet',
          ]),
        )
        break
      case 5:
        add(
          ...r.pick([
            ['-m', '1G'],
            ['-machine', 'q35'],
            ['-M', 'pc'],
            ['-smp', '2'],
            ['-nographic'],
            ['-S'],
            ['-enable-kvm'],
          ]),
        )
        break
      case 6:
        add(
          '-object',
          r.pick([`memory-backend-ram,id=m${id()},size=1G,share=on`, `memory-backend-memfd,id=m${id()},size=1G`]),
        )
        break
      case 7: {
        const plain = r.pick(['foo', 'web-1', 'a'.repeat(40), 'x.y', `vm${id()}`])
        const text = r.pick([
          plain,
          `guest=${plain}`,
          `${plain},debug-threads=on`,
          `debug-threads=on,guest=${plain}`,
          'debug-threads=on',
          'ü b',
          'guest=',
        ])
        argv.push('-name', text)
        name = text.includes(plain) ? plain : undefined
        break
      }
      default: {
        const mark = `mark${next++}`
        argv.push(
          ...r.pick([
            ['-netdev', `user,id=${mark}`],
            ['-device', `e1000,netdev=${mark}`],
            ['-drive', `file=${mark},if=none`],
            ['-append', `"a, b=c" ${mark},,x`],
            [`-future-${mark}`, `v${mark}`],
            [`${mark}.img`],
            ['-global', `virtio-net-pci.${mark}=on`],
            ['-blockdev', `{"driver":"null-co","node-name":"${mark}"}`],
          ]),
        )
      }
    }
  }
  return { argv, name }
}

function check({ argv, name }: Line): void {
  const plan = tolerant(() => planQemu(argv))
  if (!plan) return
  const sockets = plan.devices.map((_, i) => `/tmp/socket${i},x`)
  const args = plan.qemuArgs(sockets)
  assert.deepEqual(marked(args), marked(argv), 'what is not ours was changed')
  const text = args.join('\n')
  const json = sockets.map((socket) => JSON.stringify(socket))
  for (const [i, { transport }] of plan.devices.entries())
    if (transport === 'vfio-user')
      assert.equal(text.split(json[i]!).length, 2, `the socket of device ${i} is not there once`)
  // Nothing is left for us to do in what we made.
  const again = tolerant(() => planQemu(args))
  if (again && plan.warnings.length === 0 && !argv.join().includes('transport=qemu'))
    assert.deepEqual(again.devices, [], 'planned twice')
  checkNames(plan, name)
}

function checkNames({ devices, guestName }: Plan, name: string | undefined): void {
  const names = vmNames(devices, guestName)
  assert.equal(new Set(names).size, devices.length, 'two VMs of one name')
  for (const one of names) assert.match(one, NAME, 'a name that the device process does not take')
  if (name !== undefined && names.length > 0)
    assert.ok(names[0]!.startsWith(name.slice(0, 20)), `the VM is not called what -name says\n${name}: ${names[0]}`)
}

function marked(argv: readonly string[]): string[] {
  return argv.filter((word) => MARK.test(word))
}

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  for (let i = 0; i < CASES && !r.ended; i++) {
    r.step()
    const line = commandLine(r)
    try {
      check(line)
    } catch (error) {
      throw new Error(`${JSON.stringify(line.argv)}: ${(error as Error).message}`, { cause: error })
    }
  }
  return CASES
}

export const QEMU: FuzzTarget = simple('qemu', 'QEMU command lines, and what QEMU gets of them', episode)
