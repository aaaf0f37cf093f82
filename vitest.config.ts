import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    fileParallelism: false, // two cores, and a VM already takes one
    testTimeout: 60_000,
    hookTimeout: 600_000,
  },
})
