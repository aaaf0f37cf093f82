import { defineConfig } from 'vitest/config'
import { Skipped } from './test/skipped.ts'

const report = process.env['VMCHANNEL_TEST_REPORT']

/** They look at processor time, memory or how long something stood still, so nothing else runs beside them. */
const ALONE = ['footprint', 'keeper', 'soak'].map((name) => `test/machine/${name}.test.ts`)
const ALL = ['test/**/*.test.ts']
/** Once more with faults of system calls (test/support/faults.ts): short tests in which bytes and descriptors move. */
const FAULTY = ['test/chardev/{unix,unix-leaving,tcp,memory}.test.ts', 'test/loopback/*.test.ts'].concat(
  'test/device/attach/vfio-user/{server,irqs,stream}.test.ts',
)

export default defineConfig({
  test: {
    setupFiles: ['test/descriptors.ts'], // counts descriptors before and after each file
    testTimeout: 60_000,
    hookTimeout: 600_000, // the first one fetches QEMU and kernels
    // CI's machine is shared: a test that stumbles there gets one more try, and the report says so. None by hand.
    retry: process.env['CI'] ? 1 : 0,
    reporters: ['default', new Skipped(), ...(report ? [['json', { outputFile: report }] as const] : [])],
    projects: [
      {
        extends: true, // two files at a time: two cores, and a machine under TCG takes one
        test: { name: 'together', include: ALL, exclude: ALONE, maxWorkers: 2, sequence: { groupOrder: 0 } },
      },
      {
        extends: true,
        test: {
          name: 'faults',
          include: FAULTY,
          setupFiles: ['test/support/passing-faults.ts', 'test/descriptors.ts'],
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: { name: 'alone', include: ALONE, maxWorkers: 1, fileParallelism: false, sequence: { groupOrder: 1 } },
      },
    ],
  },
})
