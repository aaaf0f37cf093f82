/**
 * The clipboard of an X11 display through its tools, where they are wanted: xclip, or xsel, which knows text alone;
 * x11-watch.ts says when it has another owner. Used by select-backend.ts.
 */

import { VmchannelError } from '../errors.ts'
import { onPath, runTool } from './run-tool.ts'
import type { ClipboardTool } from './tool.ts'
import { MIME_TYPES, type MimeType, type Selection } from './wire.ts'
import { displayName } from './x11-auth.ts'
import { watchX11 } from './x11-watch.ts'

const TEXT: MimeType = 'text/plain;charset=utf-8'
const LIST_MAX = 64 << 10
const LARGEST = 256 << 20

export type X11Program = 'xclip' | 'xsel'

export function x11Tool(env: NodeJS.ProcessEnv, program: X11Program): ClipboardTool {
  const display = displayName(env)
  if (!onPath(program, env))
    throw new VmchannelError(
      'ERR_VMCHANNEL_PLATFORM',
      `the clipboard of X11 by ${program} needs that program, which is not on PATH`,
      { hint: `install the package ${program}, or use --backend x11, which needs none` },
    )
  const text = { name: `X11 display ${display} with ${program}`, env }
  const watch: ClipboardTool['watch'] = (...args) => watchX11(env, ...args)
  return program === 'xclip' ? { ...text, ...xclip(env), watch } : { ...text, ...xsel(env), watch }
}

type Part = Omit<ClipboardTool, 'name' | 'env' | 'watch'>

function xclip(env: NodeJS.ProcessEnv): Part {
  const out = (selection: Selection, target: string): [string, ...string[]] => [
    ...(['xclip', '-o', '-selection', selection, '-t', target] as const),
  ]
  return {
    types: MIME_TYPES,
    list: async (selection) => fromTargets(await runTool(out(selection, 'TARGETS'), { env, max: LIST_MAX })),
    read: (selection, type) => out(selection, type === TEXT ? 'UTF8_STRING' : type),
    own: (selection, type) => [
      ...(['xclip', '-i', '-quiet', '-selection', selection] as const),
      ...(type === TEXT ? [] : ['-t', type]),
    ],
  }
}

function xsel(env: NodeJS.ProcessEnv): Part {
  const read = (selection: Selection): [string, ...string[]] => ['xsel', `--${selection}`, '--output']
  return {
    types: [TEXT],
    // It cannot list; whether there is text it can say.
    list: async (selection) => {
      const some = await runTool(read(selection), { env, max: LARGEST })
      return some.length === 0 ? [] : [TEXT]
    },
    read,
    own: (selection) => ['xsel', `--${selection}`, '--input', '--nodetach'],
  }
}

/** Names of types, one a line, as X11 and Wayland have them. */
export function fromTargets(list: Buffer): MimeType[] {
  const names = new Set(
    list
      .toString()
      .split('\n')
      .map((line) => line.trim()),
  )
  const text = ['UTF8_STRING', 'text/plain;charset=utf-8', 'text/plain', 'STRING', 'TEXT'].some((name) =>
    names.has(name),
  )
  return MIME_TYPES.filter((type) => (type === TEXT ? text : names.has(type)))
}
