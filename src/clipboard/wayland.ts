/** The clipboard of a Wayland compositor, through wl-clipboard. Used by select-backend.ts. */

import { spawn } from 'node:child_process'
import { VmchannelError } from '../errors.ts'
import { onPath, runTool } from './run-tool.ts'
import type { ClipboardTool } from './tool.ts'
import { MIME_TYPES, type Selection } from './wire.ts'
import { fromTargets } from './x11-tools.ts'

const LIST_MAX = 64 << 10
const MESSAGE_MAX = 1000

export function waylandTool(env: NodeJS.ProcessEnv): ClipboardTool {
  const display = env['WAYLAND_DISPLAY']
  if (!display)
    throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', 'there is no Wayland display: WAYLAND_DISPLAY is not set', {
      hint: 'run it in the desktop session whose clipboard is meant',
    })
  if (!onPath('wl-paste', env) || !onPath('wl-copy', env))
    throw new VmchannelError(
      'ERR_VMCHANNEL_PLATFORM',
      'the clipboard of Wayland needs wl-copy and wl-paste, which are not on PATH',
      { hint: 'install the package wl-clipboard' },
    )
  const which = (selection: Selection): string[] => (selection === 'primary' ? ['--primary'] : [])
  return {
    name: `Wayland display ${display}`,
    types: MIME_TYPES,
    env,
    list: async (selection) =>
      fromTargets(await runTool(['wl-paste', ...which(selection), '--list-types'], { env, max: LIST_MAX })),
    read: (selection, type) => ['wl-paste', ...which(selection), '--no-newline', '--type', type],
    own: (selection, type) => ['wl-copy', ...which(selection), '--foreground', '--type', type],
    watch: async (selections, changed, failed) => {
      const stops: (() => void)[] = []
      for (const selection of selections) stops.push(watchOne(env, which(selection), () => changed(selection), failed))
      return () => {
        for (const stop of stops) stop()
      }
    },
  }
}

/** wl-paste runs a program at each change: `echo`, whose lines are counted here. */
function watchOne(
  env: NodeJS.ProcessEnv,
  which: readonly string[],
  changed: () => void,
  failed: (error: Error) => void,
): () => void {
  const child = spawn('wl-paste', [...which, '--watch', 'echo'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let stopped = false
  let said = ''
  const end = (why: string): void => {
    if (stopped) return
    stopped = true
    failed(
      new VmchannelError('ERR_VMCHANNEL_PLATFORM', `wl-paste cannot watch the clipboard: ${why}`, {
        hint: 'it needs a compositor with data-control; where there is Xwayland, --backend x11 may do',
      }),
    )
  }
  child.stdout.on('data', changed)
  child.stderr.on('data', (text: Buffer) => void (said = (said + text.toString()).slice(-MESSAGE_MAX)))
  child.once('error', (cause) => end(cause.message))
  child.once('close', (status) => end(said.trim() || `it ended with status ${status}`))
  return () => {
    stopped = true
    child.kill()
  }
}
