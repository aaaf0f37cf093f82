/** The clipboard of this desktop, by its name or by what the environment says. Part of the library. */

import { VmchannelError } from '../errors.ts'
import type { ClipboardBackend } from './backend.ts'
import { ToolClipboard } from './tool.ts'
import { waylandTool } from './wayland.ts'
import { X11Clipboard } from './x11-clipboard.ts'
import { x11Tool } from './x11-tools.ts'

export const BACKENDS = ['auto', 'x11', 'wayland', 'xclip', 'xsel'] as const
export type BackendName = (typeof BACKENDS)[number]

/** `auto`: Wayland where there is one, else X11; xclip and xsel: X11 through that program. */
export function desktopClipboard(name: BackendName = 'auto', env: NodeJS.ProcessEnv = process.env): ClipboardBackend {
  if (name === 'wayland') return new ToolClipboard(waylandTool(env))
  if (name === 'xclip' || name === 'xsel') return new ToolClipboard(x11Tool(env, name))
  if (name === 'x11') return new X11Clipboard(env)
  if (env['WAYLAND_DISPLAY']) return new ToolClipboard(waylandTool(env))
  if (env['DISPLAY']) return new X11Clipboard(env)
  throw new VmchannelError(
    'ERR_VMCHANNEL_PLATFORM',
    'there is no display: neither WAYLAND_DISPLAY nor DISPLAY is set',
    {
      hint: 'run it in the desktop session whose clipboard is meant',
    },
  )
}
