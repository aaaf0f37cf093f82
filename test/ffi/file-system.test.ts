/** Which files may be guest memory: shared memory, and local file systems that are mounted here. */
import { spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { foreignFile, mountedType } from '../../src/ffi/file-system.ts'
import { createMemfd } from '../../src/ffi/mmap.ts'
import { makePipe } from '../../src/ffi/pipe.ts'

function check(fd: number): string | undefined {
  const why = foreignFile(fd)
  closeSync(fd)
  return why
}

test('memfd, tmpfs and the disk of this machine are taken', () => {
  expect(check(createMemfd('ram', true))).toBeUndefined()
  expect(check(createMemfd('ram', false))).toBeUndefined()
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-memory-'))
  const fd = openSync(join(folder, 'ram'), 'w+')
  ftruncateSync(fd, 4096)
  expect(check(fd)).toBeUndefined()
  rmSync(folder, { recursive: true })
  if (spawnSync('test', ['-w', '/dev/shm']).status !== 0) return
  const path = `/dev/shm/vmchannel-${process.pid}`
  expect(check(openSync(path, 'w+'))).toBeUndefined()
  rmSync(path)
})

test('what the kernel or a server makes up is refused by its name', () => {
  expect(check(openSync('/proc/self/status', 'r'))).toContain('is on proc,')
  expect(check(openSync('/sys/kernel/mm/transparent_hugepage/enabled', 'r'))).toContain('is on sysfs,')
  const { read, write } = makePipe()
  expect(check(read)).toContain('no file system that is mounted here')
  closeSync(write)
})

test('the type is that of the mount, or of the device where the mount is another namespace’s', () => {
  const mountinfo = [
    '22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw',
    '28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw',
    '40 28 0:45 / /home/me/remote rw - fuse.sshfs host:/ rw,user_id=1000',
    '41 28 0:46 / /mnt rw shared:9 master:2 - nfs4 server:/ rw',
    '42 28 0:47 /sub /data rw - btrfs /dev/sdb rw',
    '',
  ].join('\n')
  expect(mountedType(mountinfo, '40', '0:45')).toBe('fuse.sshfs')
  expect(mountedType(mountinfo, '41', undefined)).toBe('nfs4')
  expect(mountedType(mountinfo, '42', '0:99')).toBe('btrfs')
  expect(mountedType(mountinfo, '777', '8:1')).toBe('ext4')
  expect(mountedType(mountinfo, '777', '0:1')).toBeUndefined()
  expect(mountedType(mountinfo, undefined, undefined)).toBeUndefined()
  // The mount counts before the device.
  expect(mountedType(mountinfo, '41', '8:1')).toBe('nfs4')
})
