import { defineConfig } from 'vitest/config'

const report = process.env['VMCHANNEL_TEST_REPORT']

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    fileParallelism: false, // two cores, and a VM already takes one
    testTimeout: 60_000,
    hookTimeout: 600_000, // the first one fetches QEMU and kernels
    // CI's machine is shared: a test that stumbles there gets one more try, and the report says so. None by hand.
    retry: process.env['CI'] ? 1 : 0,
    reporters: report ? ['default', ['json', { outputFile: report }]] : ['default'],
  },
})
