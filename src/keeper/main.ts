/**
 * Entry of the keeper: reads what it is started with, and has a supervisor keep a device process running. Does nothing
 * else, so that it has nothing to die of itself.
 *
 * Started by client/start.ts in place of the device process: same configuration on standard input, same answer on
 * standard output (the device process gives it), same end. When the keeper is killed the device goes on without one.
 */

import { openStderr } from '../daemon/stderr.ts'
import { escapeLine } from '../escape.ts'
import { onInputEnd, readConfigText } from '../daemon/stdin.ts'
import { inheritedFds } from '../ffi/exec.ts'
import { exitNow, silence } from '../ffi/local-socket.ts'
import { Supervisor } from './supervisor.ts'

const inherited = inheritedFds()
const stderr = openStderr()
const text = await readConfigText()
let config: Record<string, unknown> | undefined
try {
  config = JSON.parse(text) as Record<string, unknown>
} catch {
  // The device process says what is wrong with it.
}
const supervisor = new Supervisor({
  text,
  config,
  inherited,
  heartbeat: process.env['VMCHANNEL_HEARTBEAT'] !== 'off',
  say: (line) => void stderr(new TextEncoder().encode(`vmchannel[${process.pid}]: ${escapeLine(line)}\n`)),
  end: exitNow,
})
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'] as const)
  process.on(signal, () => supervisor.terminate())
// The device process ends by itself when these do; one that hangs does not.
for (const end of [config?.['parent'], config?.['lifeline']])
  if (typeof end === 'number') onInputEnd(() => supervisor.terminate(), end)
process.title = 'vmchannel keeper'
supervisor.start()
// The caller's pipes are the device's business now.
silence(1)
silence(0)
