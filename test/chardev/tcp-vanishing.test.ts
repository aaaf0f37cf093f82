/**
 * A peer that vanishes without FIN or RST: its end of the cable is pulled. Two network namespaces joined by a pair of
 * virtual cards, made in a user namespace where this is not root; in a process of its own, which is the one that moves.
 */
import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'

const PROGRAM = `
  import { execFileSync, spawn } from 'node:child_process'
  import { once } from 'node:events'
  const ip = (...args) => execFileSync('ip', args)
  const { openChardev } = await import(new URL('chardev/registry.js', BASE))
  const other = spawn('unshare', ['-n', 'sleep', '60'], { stdio: 'ignore' })
  await new Promise((resolve) => setTimeout(resolve, 300))
  const inside = (...args) => execFileSync('nsenter', ['-t', String(other.pid), '-n', ...args])
  ip('link', 'set', 'lo', 'up')
  ip('link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'far', 'netns', String(other.pid))
  ip('addr', 'add', '10.0.0.1/24', 'dev', 'near')
  ip('link', 'set', 'near', 'up')
  inside('ip', 'addr', 'add', '10.0.0.2/24', 'dev', 'far')
  inside('ip', 'link', 'set', 'far', 'up')
  const events = []
  const end = { setConnected: (on) => events.push(on), readable() {}, writable() {}, resized() {}, warn() {} }
  const chardev = await openChardev({ kind: 'tcp', host: '10.0.0.1', port: 0, keepaliveMs: KEEPALIVE }, end)
  const port = chardev.place.split(':')[1]
  const client = "const s = require('net').connect(" + port + ", '10.0.0.1', () => console.log('there')); s.on('data', () => {})"
  const peer = spawn('nsenter', ['-t', String(other.pid), '-n', process.execPath, '-e', client], { stdio: ['ignore', 'pipe', 'ignore'] })
  await once(peer.stdout, 'data')
  while (!chardev.connected) await new Promise((resolve) => setTimeout(resolve, 10))
  chardev.setReading(READING)
  inside('ip', 'link', 'set', 'far', 'down')
  const start = Date.now()
  while (chardev.connected && Date.now() - start < WAIT) await new Promise((resolve) => setTimeout(resolve, 50))
  console.log('connected ' + chardev.connected)
  peer.kill('SIGKILL')
  other.kill('SIGKILL')
  process.exit(0)`

/** Why this machine cannot say, where it cannot. */
function noNamespaces(): string | undefined {
  const result = spawnSync('unshare', ['-n', '-r', 'ip', 'link', 'set', 'lo', 'up'], { encoding: 'utf8' })
  return result.status === 0 ? undefined : `no network namespaces: ${result.error?.message ?? result.stderr}`
}
const why = noNamespaces()

/** What the process says. */
function vanish(keepaliveMs: number, reading: boolean, waitMs: number): string {
  const base = JSON.stringify(new URL('../../dist/src/', import.meta.url).href)
  const program = PROGRAM.replaceAll('BASE', base)
    .replace('KEEPALIVE', String(keepaliveMs))
    .replace('READING', String(reading))
    .replace('WAIT', String(waitMs))
  const args = ['-n', '-r', process.execPath, '--input-type=module', '-e', program]
  const result = spawnSync('unshare', args, { encoding: 'utf8', timeout: 50_000 })
  return result.stdout + result.stderr
}

test('is gone after the time that its probes may take, whether the port reads or not', (ctx) => {
  if (why !== undefined) ctx.skip(why)
  expect(vanish(2000, true, 30_000)).toBe('connected false\n')
  expect(vanish(2000, false, 30_000)).toBe('connected false\n')
})

test('stays for ever where nobody looks', (ctx) => {
  if (why !== undefined) ctx.skip(why)
  expect(vanish(0, true, 4000)).toBe('connected true\n')
})
