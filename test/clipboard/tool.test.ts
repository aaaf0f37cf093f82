/**
 * A guest that copies without end, before back ends that start a program for what it copied: how often, and what is
 * left.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ToolClipboard, type ClipboardTool } from '../../src/clipboard/tool.ts'
import { withoutZeros } from '../../src/clipboard/sync.ts'

const TYPE = 'text/plain;charset=utf-8'
const START_MS = 250
let folder: string
let clipboard: ToolClipboard | undefined
let starts = 0

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmch-tool-'))
  starts = 0
})
afterEach(async () => {
  await clipboard?.close()
  rmSync(folder, { recursive: true, force: true })
})

/** A program that owns the selection by writing what it got into a file, and stays. */
async function open(): Promise<ToolClipboard> {
  const tool: ClipboardTool = {
    name: 'fake',
    types: [TYPE],
    env: process.env,
    list: async () => [],
    read: () => ['/bin/true'],
    own: () => {
      starts++
      return ['/bin/sh', '-c', 'cat >"$0.new" && mv "$0.new" "$0" && exec sleep 60', join(folder, 'owned')]
    },
    watch: async () => () => {},
  }
  clipboard = new ToolClipboard(tool)
  await clipboard.start(['clipboard'], 1 << 20, { changed: () => {}, failed: () => {} })
  return clipboard
}

const owned = (): string => (existsSync(join(folder, 'owned')) ? readFileSync(join(folder, 'owned'), 'utf8') : '')

describe('a guest that copies without end', () => {
  it('any number of copies, at any pace: few programs, and the last content is owned', async () => {
    const pace = fc.array(fc.constantFrom(0, 0, 0, 1, 5, 40), { minLength: 1, maxLength: 120 })
    await fc.assert(
      fc.asyncProperty(pace, fc.integer({ min: 0, max: 30 }), async (pauses, readMs) => {
        starts = 0
        const tool = await open()
        const began = performance.now()
        let last: Promise<void> | undefined
        let reads = 0
        let most = 0
        for (const [i, pause] of pauses.entries()) {
          last = tool.offer('clipboard', {
            types: [TYPE],
            read: async () => {
              most = Math.max(most, ++reads)
              await sleep(readMs)
              reads--
              return Buffer.from(`copy ${i}`)
            },
          })
          if (pause > 0) await sleep(pause)
        }
        await last
        const ms = performance.now() - began
        for (let i = 0; i < 1000 && owned() !== `copy ${pauses.length - 1}`; i++) await sleep(10)
        expect(owned()).toBe(`copy ${pauses.length - 1}`)
        expect(starts).toBeLessThanOrEqual(2 + ms / START_MS)
        expect(most).toBe(1)
        await tool.close()
        rmSync(join(folder, 'owned'), { force: true })
      }),
      { numRuns: 6 },
    )
  })

  it('what cannot be read is said of the last copy, and the next one goes on', async () => {
    const tool = await open()
    const failing = { types: [TYPE] as const, read: () => Promise.reject(new Error('no such content')) }
    await expect(tool.offer('clipboard', failing)).rejects.toThrow('no such content')
    await tool.offer('clipboard', { types: [TYPE], read: async () => Buffer.from('next') })
    for (let i = 0; i < 1000 && owned() !== 'next'; i++) await sleep(10)
    expect(owned()).toBe('next')
  })

  it('a copy that is let go of at once is not owned afterwards', async () => {
    const tool = await open()
    await tool.offer('clipboard', { types: [TYPE], read: async () => Buffer.from('one') })
    const two = tool.offer('clipboard', { types: [TYPE], read: async () => Buffer.from('two') })
    await tool.offer('clipboard', undefined)
    await two
    await sleep(2 * START_MS)
    expect(starts).toBe(1)
    expect(owned()).not.toBe('two')
  })
})

describe('a text that ends with zeros', () => {
  it('is looked at once, however long', () => {
    const bytes = Buffer.alloc(1 << 20)
    bytes.write('text')
    let views = 0
    bytes.subarray = function count(...args) {
      views++
      return Buffer.prototype.subarray.apply(this, args) as typeof bytes
    }
    expect(withoutZeros(bytes).toString()).toBe('text')
    expect(views).toBe(1)
    expect(withoutZeros(Buffer.alloc(5))).toHaveLength(0)
    expect(withoutZeros(Buffer.from('a\0b\0')).toString()).toBe('a\0b')
  })
})
