/** Roots that are snapshots of one: by the names that libguestfs has for them. */
import { expect, it } from 'vitest'
import { foldSnapshots } from '../../src/inspect/snapshots.ts'

it('openSUSE: the default subvolume is the system, its snapshots are counted', () => {
  const snapshots = [1, 2, 35].map((number) => `btrfsvol:/dev/sda2/@/.snapshots/${number}/snapshot`)
  expect(foldSnapshots(['/dev/sda2', ...snapshots, '/dev/sdb1'])).toEqual({
    kept: ['/dev/sda2', '/dev/sdb1'],
    snapshots: new Map([['/dev/sda2', 3]]),
  })
})

it('Timeshift, on a logical volume', () => {
  const snapshot = 'btrfsvol:/dev/vg/root/timeshift-btrfs/snapshots/2026-11-01_10-00-01/@'
  expect(foldSnapshots(['btrfsvol:/dev/vg/root/@', snapshot])).toEqual({
    kept: ['btrfsvol:/dev/vg/root/@'],
    snapshots: new Map([['/dev/vg/root', 1]]),
  })
})

it('nothing but snapshots: one stays; other subvolumes and other devices are systems', () => {
  const [one, two] = ['btrfsvol:/dev/sda1/.snapshots/7/snapshot', 'btrfsvol:/dev/sda1/.snapshots/8/snapshot']
  expect(foldSnapshots([one, two]).kept).toEqual([one])
  const several = ['btrfsvol:/dev/sda3/fedora', 'btrfsvol:/dev/sda3/arch', one, '/dev/mapper/vg-a']
  expect(foldSnapshots(several)).toEqual({ kept: several, snapshots: new Map() })
})
