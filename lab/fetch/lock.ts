/**
 * One fetch at a time for each cache folder. The lock is a socket in the abstract namespace, named after the folder:
 * the kernel gives it back when its owner dies, so there is no stale lock to judge.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { realpathSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** Runs `work` alone; `onWait` is called once if somebody else holds the lock. */
export async function withLock<T>(folder: string, work: () => Promise<T>, onWait: () => void = () => {}): Promise<T> {
  const name = `\0vmchannel-lab-${createHash('sha256').update(realpathSync(folder)).digest('hex').slice(0, 24)}`
  let lock = await tryBind(name)
  if (!lock) onWait()
  while (!lock) {
    await sleep(200)
    lock = await tryBind(name)
  }
  try {
    return await work()
  } finally {
    lock.close()
  }
}

async function tryBind(name: string): Promise<Server | undefined> {
  const server = createServer()
  server.listen({ path: name, exclusive: true })
  try {
    await once(server, 'listening')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return undefined
    throw error
  }
  server.unref()
  return server
}
