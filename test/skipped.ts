/** Reporter: says of each test that was skipped why it was. In CI one that does not say fails the run. */
import type { TestModule } from 'vitest/node'
import type { Reporter } from 'vitest/reporters'

export class Skipped implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    for (const module of modules) {
      for (const test of module.children.allTests('skipped')) {
        const result = test.result()
        const note = result.state === 'skipped' ? result.note : undefined
        // By hand `-t` leaves out tests too, which nobody wants to read of.
        if (note === undefined && !process.env['CI']) continue
        process.stdout.write(`skipped: ${module.relativeModuleId} > ${test.fullName}: ${note ?? 'no reason given'}\n`)
        if (note === undefined) process.exitCode = 1
      }
    }
  }
}
