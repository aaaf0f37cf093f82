import { defineConfig } from 'vitest/config'

const report = process.env['VMCHANNEL_TEST_REPORT']

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    fileParallelism: false, // two cores, and a VM already takes one
    testTimeout: 60_000,
    hookTimeout: 600_000, // the first one fetches QEMU and kernels
    reporters: report ? ['default', ['json', { outputFile: report }]] : ['default'],
  },
})
