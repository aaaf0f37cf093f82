/**
 * Which QEMU the lab takes on machines that have none, an older one, and one that fits; and what a moved cache does.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { ensureLaunchers, launcherText } from '../../lab/fetch/launcher.ts'
import { ensureOldQemu } from '../../lab/fetch/old-qemu.ts'
import { ensureQemu, fetchQemu, QEMU_LAUNCHER } from '../../lab/fetch/qemu.ts'

const NAME = 'qemu-system-x86_64'
let folder = ''
let fits = { path: '', version: '' }
let old = { path: '', version: '' }
beforeAll(async () => {
  fits = await fetchQemu()
  old = await ensureOldQemu()
}, 900_000)
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'vmchannel-lab-test-'))))
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

describe('what the demo, the tests and the measurements run', () => {
  /** A machine whose own QEMU is this one; none: undefined. */
  function machineWith(qemu: string | undefined): string {
    const own = join(folder, NAME)
    if (qemu !== undefined) symlinkSync(qemu, own)
    vi.stubEnv('PATH', qemu === undefined ? folder : `${folder}:/usr/bin:/bin`)
    vi.stubEnv('VMCHANNEL_QEMU', '')
    return own
  }

  it('with an older one on PATH: the one of the cache', async () => {
    const own = machineWith(old.path)
    // What was taken for a yes: 7.2 says that it has no such device, and ends with status 0.
    const asked = spawnSync(own, ['-device', 'vfio-user-pci,help'], { encoding: 'utf8' })
    expect([asked.status, `${asked.stdout}${asked.stderr}`]).toEqual([0, expect.stringContaining('not found')])
    expect(await ensureQemu()).toEqual({ path: fits.path, version: fits.version, source: 'cache' })
  })

  it('with none: the one of the cache', async () => {
    machineWith(undefined)
    expect(await ensureQemu()).toEqual({ path: fits.path, version: fits.version, source: 'cache' })
  })

  it('with something else of that name, or a folder: the one of the cache', async () => {
    const own = machineWith('/bin/true')
    expect(await ensureQemu()).toMatchObject({ source: 'cache' })
    rmSync(own)
    mkdirSync(own)
    expect(await ensureQemu()).toMatchObject({ source: 'cache' })
  })

  it('with one that fits: that one', async () => {
    const own = machineWith(fits.path)
    expect(await ensureQemu()).toEqual({ path: own, version: fits.version, source: 'system' })
  })

  it('with VMCHANNEL_QEMU: that one or none', async () => {
    machineWith(fits.path)
    vi.stubEnv('VMCHANNEL_QEMU', fits.path)
    expect(await ensureQemu()).toEqual({ path: fits.path, version: fits.version, source: 'environment' })
    vi.stubEnv('VMCHANNEL_QEMU', NAME)
    expect(await ensureQemu()).toEqual({ path: join(folder, NAME), version: fits.version, source: 'environment' })
    vi.stubEnv('VMCHANNEL_QEMU', old.path)
    await expect(ensureQemu()).rejects.toThrow(
      /^the QEMU of VMCHANNEL_QEMU does not do: QEMU 7\.2\.\d+ at .* is too old/,
    )
    vi.stubEnv('VMCHANNEL_QEMU', join(folder, 'nothing'))
    await expect(ensureQemu()).rejects.toMatchObject({
      message: `the QEMU of VMCHANNEL_QEMU does not do: VMCHANNEL_QEMU: ${folder}/nothing does not exist`,
      hint: expect.stringContaining('unset VMCHANNEL_QEMU'),
    })
  })
})

describe('a cache that is not where it was made', () => {
  const versionOf = (
    file: string,
    args: readonly string[],
    options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
  ) => {
    const { stdout, stderr } = spawnSync(file, args, { encoding: 'utf8', ...options })
    return /version (\d+\.\d+\.\d+)/.exec(stdout)?.[1] ?? `${stdout}${stderr}`
  }

  it('its programs start there, however they are called', async () => {
    const made = join(folder, 'made here')
    const moved = join(folder, `moved 'to' a "place"`)
    mkdirSync(join(made, 'trees'), { recursive: true })
    execFileSync('cp', ['-a', dirname(dirname(fits.path)), join(made, 'trees/qemu')])
    vi.stubEnv('VMCHANNEL_CACHE', made)
    expect((await fetchQemu()).path).toBe(join(made, 'trees/qemu', QEMU_LAUNCHER.script))
    renameSync(made, moved)
    const tree = join(moved, 'trees/qemu')
    const script = join(tree, QEMU_LAUNCHER.script)
    const link = join(folder, 'link')
    symlinkSync(script, link)
    const env = { ...process.env, CDPATH: '/usr:/tmp' }
    for (const [file, args, options] of [
      [script, [], {}],
      [link, [], {}],
      [`./${NAME}`, [], { cwd: dirname(script) }],
      ['/bin/sh', [NAME], { cwd: dirname(script) }],
      [QEMU_LAUNCHER.script, [], { cwd: tree, env }],
      [NAME, [], { env: { ...env, PATH: `${dirname(script)}:${process.env['PATH']}` } }],
    ] as const)
      expect(versionOf(file, [...args, '-version'], options), `${file} ${args.join(' ')}`).toBe(fits.version)
    // Its firmware and its modules are those of the new place: the machine starts, and "-device help" loads all
    // modules.
    const quit = spawnSync(script, ['-S', '-display', 'none', '-monitor', 'stdio'], {
      input: 'quit\n',
      encoding: 'utf8',
    })
    expect({ status: quit.status, stderr: quit.stderr }).toEqual({ status: 0, stderr: '' })
    const help = spawnSync(script, ['-device', 'help'], { encoding: 'utf8' })
    expect(help.stdout.includes('name "virtio-vga"'), help.stderr).toBe(true) // of a module
    expect(existsSync(made)).toBe(false)
  }, 60_000)

  it('a launcher with an old path in it, as they were once, is written anew', async () => {
    const tree = join(folder, 'tree')
    const path = join(tree, QEMU_LAUNCHER.script)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, `#!/bin/sh\nexec '/gone/trees/qemu/usr/bin/${NAME}' "$@"\n`, { mode: 0o755 })
    await ensureLaunchers(tree, [QEMU_LAUNCHER])
    expect(readFileSync(path, 'utf8')).toBe(launcherText(QEMU_LAUNCHER))
    const before = statSync(path)
    await ensureLaunchers(tree, [QEMU_LAUNCHER])
    expect(statSync(path).ino).toBe(before.ino)
    chmodSync(path, 0o644)
    await ensureLaunchers(tree, [QEMU_LAUNCHER])
    expect(statSync(path).mode & 0o777).toBe(0o755)
  })

  it('a place that the loader cannot take is said', async () => {
    const tree = join(folder, 'a:b')
    await ensureLaunchers(tree, [QEMU_LAUNCHER])
    const { status, stderr } = spawnSync(join(tree, QEMU_LAUNCHER.script), ['-version'], { encoding: 'utf8' })
    expect([status, stderr]).toEqual([126, expect.stringContaining('a folder with one of : ; $ in its path')])
  })
})
