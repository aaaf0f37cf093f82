/** `vmchannel inspect` as far as it goes without an appliance: what it says, and its exit status. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { afterAll, expect, it } from 'vitest'
import { vmdk } from '../support/disk-images.ts'
import { Bench } from './run.ts'

const bench = new Bench()
afterAll(() => bench.close())

it('a disk that does not exist', async () => {
  const { status, stdout, stderr } = await bench.run(['inspect', bench.path('nowhere.img')])
  expect(stderr).toBe(`vmchannel: ${bench.path('nowhere.img')} does not exist\n  name a disk image\n`)
  expect({ status, stdout }).toEqual({ status: 5, stdout: '' })
})

it('--json: the error is one line of JSON, without progress', async () => {
  writeFileSync(bench.path('text'), 'not a disk\n'.repeat(100))
  const { status, stdout, stderr } = await bench.run(['inspect', '--json', bench.path('text')])
  const { error } = JSON.parse(stderr) as { error: Record<string, string> }
  expect(error).toEqual({
    code: 'ERR_VMCHANNEL_DISK',
    message: `${bench.path('text')} is no disk image: it is a text`,
    hint: 'name a disk image',
  })
  expect({ status, stdout }).toEqual({ status: 14, stdout: '' })
})

it('an image that names another file: refused, whatever is said of it', async () => {
  writeFileSync(bench.path('evil.vmdk'), vmdk({ capacity: 0, extents: ['RW 2048 FLAT "/etc/passwd" 0'] }))
  for (const words of [[], ['--format', 'vmdk']]) {
    const { status, stdout, stderr } = await bench.run(['inspect', ...words, bench.path('evil.vmdk')])
    expect(stderr).toBe(
      `vmchannel: ${bench.path('evil.vmdk')} is vmdk with extents (its capacity is 0), and could name any file of ` +
        'this host\n  if you trust it, make one file of it: qemu-img convert -f vmdk -O qcow2 IMAGE NEW.qcow2\n',
    )
    expect({ status, stdout }).toEqual({ status: 14, stdout: '' })
  }
})

it('no appliance: the package is named', async () => {
  writeFileSync(bench.path('disk'), Buffer.alloc(1 << 20, 0x90))
  mkdirSync(bench.path('none'))
  const env = { VMCHANNEL_QEMU: bench.fakeQemu(), LIBGUESTFS_PATH: bench.path('none') }
  const { status, stderr } = await bench.run(['inspect', bench.path('disk')], { env })
  expect(stderr).toMatch(/libguestfs's appliance is not installed[^]*apt install libguestfs0 supermin/)
  expect(status).toBe(5)
})

it('no disk, too many disks, a format that is none', async () => {
  const many = Array.from({ length: 26 }, () => bench.path('text'))
  for (const words of [[], many, ['a', '--format', 'floppy']]) {
    expect((await bench.run(['inspect', ...words])).status).toBe(2)
  }
})
