/** The guest image of `npm run guest-image`, both forms, as a user boots it: our driver comes up by itself. */
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ConsoleHost } from '../../lab/console-host.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { makeGuestImage, type ImageFormat } from '../../lab/make-guest-image.ts'
import { readBytes, until } from './rig.ts'

const NAME = 'org.example.0'

describe('npm run guest-image', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-image-'))
  let host: ConsoleHost | undefined
  let qemu: ChildProcess | undefined
  const end = async (): Promise<void> => {
    qemu?.kill('SIGKILL')
    await host?.close()
    qemu = host = undefined
  }
  afterAll(async () => {
    await end()
    rmSync(folder, { recursive: true, force: true })
  })

  it.each<[ImageFormat, string]>([
    ['initramfs', '512M'],
    ['ext4', '256M'],
  ])(
    '%s: boots, and its program answers on /dev/vmch0',
    async (format, memory) => {
      const program = join(folder, 'rc.local')
      // One descriptor for both: a second opener would be refused.
      writeFileSync(program, '#!/bin/sh\n[ -e /dev/vmch0 ] || exec sleep 0.2\nexec 3<>/dev/vmch0\nexec cat <&3 >&3\n', {
        mode: 0o755,
      })
      const image = await makeGuestImage({ out: folder, format, kernel: '6.1', add: { '/etc/rc.local': program } })
      const { path } = await ensureQemu()
      host = await ConsoleHost.start({ device: 'ours', slot: 0x10, ports: [NAME] })
      const log = join(folder, `${format}.log`)
      qemu = spawn(
        path,
        [
          ...['-accel', 'tcg', '-m', memory, '-machine', 'q35,memory-backend=mem0', '-nodefaults', '-no-user-config'],
          ...['-object', `memory-backend-memfd,id=mem0,size=${memory},share=on`, '-display', 'none'],
          ...['-serial', `file:${log}`, ...image.args, ...host.args],
        ],
        { stdio: 'inherit' },
      )
      await until(() => host!.guestOpen(NAME), `the guest opens its port: ${log}`, 120_000).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${readFileSync(log, 'latin1').slice(-3000)}`)
      })
      const peer = await host.connect(NAME)
      const back = readBytes(peer, 100_000, 60_000)
      const bytes = Buffer.alloc(100_000, 'round and round ')
      peer.write(bytes)
      expect((await back).equals(bytes)).toBe(true)
      expect(readFileSync(log, 'latin1')).toMatch(/port 1: \/dev\/vmch0 \(org\.example\.0\)/)
      await end()
    },
    200_000,
  )
})
