/** Tests with the desktop image, which takes root and about a minute to make: `npm run test:desktop`. */
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.desktop.ts'],
    setupFiles: ['test/descriptors.ts'],
    fileParallelism: false,
    testTimeout: 180_000,
    hookTimeout: 900_000, // makes the image when it is not there
  },
})
