/** The guest's program where there is nothing to drive: this machine. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { findConsoleFunctions } from '../../src/driver/attach/pci-sysfs.ts'

const MAIN = new URL('../../dist/src/guest/main.js', import.meta.url).pathname
const root = process.geteuid?.() === 0
const run = (words: string[], uid?: number): { status: number | null; stderr: string } =>
  spawnSync(process.execPath, [MAIN, ...words], {
    ...{ encoding: 'utf8', timeout: 20_000 },
    ...(uid === undefined ? {} : { uid, cwd: '/' }),
  })

describe('node dist/src/guest/main.js', () => {
  it('is built', () => expect(existsSync(MAIN), 'npm run build comes first').toBe(true))

  it('names an option that it does not know, and its own', () => {
    const { status, stderr } = run(['--divice', 'x'])
    expect(stderr).toMatch(/--divice.*\n.*--device 0000:00:03.0/)
    expect(status).toBe(2)
  })

  it('says that it takes root', () => {
    const { status, stderr } = run([], root ? 65_534 : undefined)
    expect(stderr).toMatch(/takes root; this is user \d+\n.*sudo/)
    expect(status).toBe(9)
  })

  it('refuses what is not an address, and says that there is no device', () => {
    if (!root || findConsoleFunctions().length > 0) {
      console.log('not checked: this takes root, on a machine without virtio-serial')
      return
    }
    expect(run(['--device', 'modern'])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/"modern" is not the address of a PCI function\n.*00:03.0/),
    })
    expect(run([])).toMatchObject({
      status: 5,
      stderr: expect.stringMatching(/no virtio-serial device on PCI\n.*vmchannel qemu/),
    })
  })
})
