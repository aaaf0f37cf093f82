/** The guest's program where there is nothing to drive: this machine. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { findConsoleFunctions } from '../../src/driver/attach/pci-sysfs.ts'

const MAIN = new URL('../../dist/src/guest/main.js', import.meta.url).pathname
const run = (...words: string[]): { status: number | null; stderr: string } =>
  spawnSync(process.execPath, [MAIN, ...words], { encoding: 'utf8', timeout: 20_000 })
const root = process.geteuid?.() === 0

describe('node dist/src/guest/main.js', () => {
  it('is built', () => expect(existsSync(MAIN), 'npm run build comes first').toBe(true))

  it('names an option that it does not know, and its own', () => {
    const { status, stderr } = run('--divice', 'x')
    expect(stderr).toMatch(/--divice.*\n.*--device 0000:00:03.0/)
    expect(status).toBe(2)
  })

  it.runIf(root)('refuses what is not an address', () => {
    const { status, stderr } = run('--device', 'modern')
    expect(stderr).toMatch(/"modern" is not the address of a PCI function\n.*00:03.0/)
    expect(status).toBe(2)
  })

  it.runIf(root && findConsoleFunctions().length === 0)('says that there is no device', () => {
    const { status, stderr } = run()
    expect(stderr).toMatch(/no virtio-serial device on PCI\n.*vmchannel qemu/)
    expect(status).toBe(5)
  })

  it.runIf(!root)('says that it takes root', () => {
    expect(run().stderr).toMatch(/takes root/)
  })
})
