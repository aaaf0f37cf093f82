/**
 * Runs libguestfs's programs on our device, or on QEMU's own for comparison. Either way a script of ours is their
 * hypervisor (LIBGUESTFS_HV), QEMU is the lab's and guest memory is a memfd.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type CommandResult, tryCommand } from './command.ts'
import { ensureGuestfs, type Guestfs } from './fetch/guestfs.ts'
import { ensureQemu } from './fetch/qemu.ts'
import { repoRoot } from './paths.ts'

export interface GuestfsLabOptions {
  device?: 'ours' | 'qemu'
  /** Default `pc`, which is what libguestfs asks for. */
  machine?: 'pc' | 'q35'
}

export class GuestfsLab {
  readonly guestfs: Guestfs
  /** Files of a test lie here; removed by close(). */
  readonly folder: string = mkdtempSync(join(tmpdir(), 'vmchannel-guestfs-'))
  readonly #qemu: string

  static async open(): Promise<GuestfsLab> {
    return new GuestfsLab(await ensureGuestfs(), (await ensureQemu()).path)
  }

  private constructor(guestfs: Guestfs, qemu: string) {
    this.guestfs = guestfs
    this.#qemu = qemu
    for (const name of ['tmp', 'cache', 'state']) mkdirSync(join(this.folder, name))
  }

  close(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }

  /** Variables for a program that uses libguestfs. */
  env(options: GuestfsLabOptions = {}): Record<string, string> {
    return {
      LIBGUESTFS_BACKEND: 'direct',
      LIBGUESTFS_BACKEND_SETTINGS: 'force_tcg', // /dev/kvm may open and still not work
      LIBGUESTFS_PATH: this.guestfs.appliance,
      LIBGUESTFS_HV: this.#hypervisor(options),
      LIBGUESTFS_CACHEDIR: join(this.folder, 'cache'),
      TMPDIR: join(this.folder, 'tmp'),
      VMCHANNEL_STATE_DIR: join(this.folder, 'state'),
      VMCHANNEL_QEMU: this.#qemu,
      PATH: `${this.guestfs.bin}:${process.env['PATH']}`,
    }
  }

  /** Runs one of its programs to the end, whatever the status. */
  run(
    program: string,
    args: readonly string[],
    options: GuestfsLabOptions & { input?: string; env?: Record<string, string> } = {},
  ): Promise<CommandResult> {
    const env = { ...this.env(options), ...options.env }
    const input = options.input === undefined ? {} : { input: Buffer.from(options.input) }
    return tryCommand(join(this.guestfs.bin, program), args, { env, cwd: this.folder, ...input })
  }

  /** A script that starts QEMU with our device, or with nothing but the same memory. */
  #hypervisor({ device = 'ours', machine = 'pc' }: GuestfsLabOptions): string {
    const path = join(this.folder, `hv-${device}-${machine}`)
    const program = join(repoRoot(), device === 'ours' ? 'dist/src/cli/vmchannel-qemu.js' : 'dist/lab/plain-qemu.js')
    const words = `'${process.execPath}' '${program}'`
    // Only the real launch gets another machine: the other calls are questions.
    const launch = machine === 'q35' ? `case "$*" in *-kernel*) set -- -machine q35 "$@" ;; esac\n` : ''
    writeFileSync(path, `#!/bin/sh\n${launch}exec ${words} "$@"\n`)
    chmodSync(path, 0o755)
    return path
  }
}
