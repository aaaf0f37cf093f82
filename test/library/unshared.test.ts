/** A guest whose memory the device cannot reach: it boots, the driver is refused, and the reason is said. Needs the build. */
import { once } from 'node:events'
import { expect, it } from 'vitest'
import { createDevice } from '../../src/index.ts'
import { boot } from './boot.ts'

const plain = ['-m', '256M']
const memfd = (share: string): string[] => [
  ...plain,
  '-object',
  `memory-backend-memfd,id=m,size=256M,share=${share}`,
  '-machine',
  'memory-backend=m',
]

it.each([
  ['no backend at all', plain, 'does not share'],
  ['share=off', memfd('off'), 'share=off'],
])(
  '%s',
  async (_, args, text) => {
    const lines: string[] = []
    const log = { error: (line: string) => void lines.push(line), warn() {}, info() {}, debug() {} }
    await using device = await createDevice({ log })
    await device.addPort({ name: 'a' })
    const waiting = device.waitForDriver({ timeout: 60_000 }).catch((error: unknown) => error)
    const problem = once(device, 'problem')
    const machine = await boot(device, '6.1', args)
    try {
      expect((await problem)[0]).toContain(text)
      expect(await waiting).toMatchObject({ code: 'ERR_VMCHANNEL_MEMORY' })
      expect(device.problem).toContain('share=on')
      expect(device.started).toBe(false)
      expect(lines.join('\n')).toContain(text)
      expect(lines.join('\n')).toContain('driver was refused')
      // The guest is alive, and has no port.
      expect(await machine.sh('ls /dev/vport* 2>/dev/null | wc -l')).toBe('0')
    } finally {
      await machine.close()
    }
  },
  120_000,
)

it('share=on is no problem', async () => {
  await using device = await createDevice({ log: 'ignore' })
  const machine = await boot(device, '6.1', memfd('on'))
  try {
    await device.waitForDriver({ timeout: 5000 })
    expect(device.problem).toBeNull()
  } finally {
    await machine.close()
  }
}, 120_000)
