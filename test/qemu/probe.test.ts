import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { findQemu } from '../../src/qemu/find.ts'
import { probeCacheFile, probeQemu } from '../../src/qemu/probe.ts'

let dir = ''
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'vmchannel-probe-'))
})
afterEach(() => {
  rmSync(dir, { recursive: true, force: true })
})

/** A program that answers as QEMU does, and notes that it was asked. */
function fake(name: string, version: string, device = 'echo "  socket=<SocketAddress>"'): string {
  const path = join(dir, name)
  writeFileSync(
    path,
    `#!/bin/sh\necho "$*" >> '${dir}/asked'\ncase "$*" in *-version*) ${version};; *-device*) ${device};; esac\n`,
  )
  chmodSync(path, 0o755)
  return path
}
const version = (text: string): string => `echo "QEMU emulator version ${text}"; echo "Copyright (c)"`
const asked = (): number =>
  existsSync(join(dir, 'asked')) ? readFileSync(join(dir, 'asked'), 'utf8').split('\n').length - 1 : 0

describe('findQemu', () => {
  it('takes the path of the command line, then of the environment, then PATH', () => {
    const one = fake('one', '')
    const two = fake('two', '')
    const three = fake('qemu-system-x86_64', '')
    expect(findQemu({ VMCHANNEL_QEMU: two, PATH: dir }, one)).toBe(one)
    expect(findQemu({ VMCHANNEL_QEMU: two, PATH: dir })).toBe(two)
    expect(findQemu({ VMCHANNEL_QEMU: '', PATH: `::/nonexistent:${dir}` })).toBe(three)
    expect(findQemu({ PATH: dir }, 'two')).toBe(two)
  })

  it('passes over what is no program, and over itself', () => {
    mkdirSync(join(dir, 'a', 'qemu-system-x86_64'), { recursive: true })
    mkdirSync(join(dir, 'b'))
    const self = fake('self', '')
    symlinkSync(self, join(dir, 'b', 'qemu-system-x86_64'))
    const real = fake('qemu-kvm', '')
    const PATH = `${dir}/a:${dir}/b:${dir}`
    expect(findQemu({ PATH }, undefined, self)).toBe(real)
    expect(() => findQemu({}, join(dir, 'b', 'qemu-system-x86_64'), self)).toThrow(/is vmchannel itself/)
  })

  it.each([
    [{}, '/nonexistent', /^--qemu-binary: \/nonexistent does not exist$/],
    [{ VMCHANNEL_QEMU: '/etc' }, undefined, /^VMCHANNEL_QEMU: \/etc is not a file$/],
    [{ VMCHANNEL_QEMU: '/etc/passwd' }, undefined, /^VMCHANNEL_QEMU: \/etc\/passwd is not executable$/],
    [{ PATH: '/nonexistent' }, 'qemu-x', /^--qemu-binary: no qemu-x in PATH$/],
  ])('says what is wrong: %j %s', (env, explicit, message) => {
    expect(() => findQemu(env, explicit)).toThrow(
      expect.objectContaining({ code: 'ERR_VMCHANNEL_QEMU', message: expect.stringMatching(message) }),
    )
  })
})

describe('probeQemu', () => {
  it.each([
    ['10.1.0', '10.1.0'],
    ['10.1.50 (v10.1.0-123-gabc)', '10.1.50'],
    ['11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)', '11.1.3'],
    ['12.0', '12.0.0'],
  ])('accepts %s', (text, expected) => {
    const path = fake('qemu', version(text))
    expect(probeQemu(path, undefined)).toEqual({ path, version: expected })
  })

  it.each([
    [
      version('7.2.22 (Debian 1:7.2+dfsg-7)'),
      undefined,
      /^QEMU 7\.2\.22 at .*\/qemu is too old: vfio-user-pci came with 10\.1$/,
    ],
    [version('10.0.9'), undefined, /QEMU 10\.0\.9 .* too old/],
    ['echo "qemu-img version 11.1"', undefined, /is no QEMU system emulator: -version says "qemu-img version 11.1"$/],
    ['true', undefined, /-version says ""/],
    [version('11.1.3'), `echo "Device 'vfio-user-pci' not found" >&2; exit 1`, /has no vfio-user-pci/],
    // As 7.2 answers.
    [version('11.1.3'), `echo "Device 'vfio-user-pci' not found" >&2; exit 0`, /has no vfio-user-pci/],
    [version('11.1.3'), 'kill -6 $$', /has no vfio-user-pci/],
  ])('refuses %s', (answer, device, message) => {
    expect(() => probeQemu(fake('qemu', answer, device), undefined)).toThrow(
      expect.objectContaining({ code: 'ERR_VMCHANNEL_QEMU', message: expect.stringMatching(message) }),
    )
  })

  it('refuses what cannot be started', () => {
    expect(() => probeQemu('/nonexistent/qemu', undefined)).toThrow(/\/nonexistent\/qemu does not exist/)
    writeFileSync(join(dir, 'broken'), '#!/nonexistent/interpreter\n', { mode: 0o755 })
    expect(() => probeQemu(join(dir, 'broken'), undefined)).toThrow(/broken cannot be started: ENOENT/)
  })

  it('asks once, and again when the file has changed', () => {
    const path = fake('qemu', version('11.1.3'))
    const cache = join(dir, 'cache', 'vmchannel', 'qemu.json')
    for (let i = 0; i < 3; i++) expect(probeQemu(path, cache).version).toBe('11.1.3')
    expect(asked()).toBe(2) // -version, -device
    expect(statSync(cache).mode & 0o777).toBe(0o600)
    fake('qemu', version('9.9.9'))
    utimesSync(path, 1, 1)
    expect(() => probeQemu(path, cache)).toThrow(/9\.9\.9/)
    expect(Object.values(JSON.parse(readFileSync(cache, 'utf8')) as object)).toEqual(['11.1.3'])
  })

  it('does not keep a refusal', () => {
    const cache = join(dir, 'qemu.json')
    const path = fake('qemu', version('7.2.0'))
    expect(() => probeQemu(path, cache)).toThrow()
    expect(existsSync(cache)).toBe(false)
  })

  it.each(['', '{', '[]', 'null', '{"x":1}', '"x"'])('lives with a cache file that says %j', (content) => {
    const cache = join(dir, 'qemu.json')
    writeFileSync(cache, content)
    const path = fake('qemu', version('11.1.3'))
    expect(probeQemu(path, cache).version).toBe('11.1.3')
    expect(probeQemu(path, cache).version).toBe('11.1.3')
    expect(asked()).toBe(2)
  })

  it('lives without a place for the file', () => {
    const path = fake('qemu', version('11.1.3'))
    expect(probeQemu(path, '/proc/nowhere/qemu.json').version).toBe('11.1.3')
  })

  it('knows where to keep it', () => {
    expect(probeCacheFile({ XDG_CACHE_HOME: '/x', HOME: '/h' })).toBe('/x/vmchannel/qemu.json')
    expect(probeCacheFile({ XDG_CACHE_HOME: 'relative', HOME: '/h' })).toBe('/h/.cache/vmchannel/qemu.json')
  })

  it('accepts the real one', async () => {
    const { path, version } = await ensureQemu()
    expect(probeQemu(path, undefined)).toEqual({ path, version })
  })
})
