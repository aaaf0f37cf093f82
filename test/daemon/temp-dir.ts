/** A directory for one test file; short, since sockets lie in it. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export class TempDir {
  readonly path: string = mkdtempSync(join(tmpdir(), 'vmc-'))

  remove(): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}
