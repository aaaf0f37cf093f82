/** Row of the command table: the clipboard. */

import { BACKENDS } from '../clipboard/select-backend.ts'
import { CONTROL_OPTIONS, JSON_OPTION, type CommandRow } from './table.ts'

export const CLIPBOARD: CommandRow = {
  name: 'clipboard',
  summary: 'share the clipboard of this desktop with a guest that runs spice-vdagent',
  text: [
    'The guest needs the package spice-vdagent and a port named com.redhat.spice.0 that leads to "attach" or to a socket. ' +
      'Its agent answers when somebody is logged in to a desktop there; until then, and whenever it starts again, this ' +
      'waits. Ends when the VM does, or when interrupted.',
    'On the host X11 needs nothing more, Wayland needs wl-clipboard and a compositor with data-control (where there is ' +
      'none, --backend x11 goes through Xwayland). Content moves when it is pasted; through wl-clipboard, xclip ' +
      'and xsel what is copied in the guest moves at once, in one type. Content that is too large or that its owner does ' +
      'not give is refused, and said here: the program that wanted it goes on with nothing.',
    'Text is handed on byte by byte, whether it is UTF-8 or not, with two exceptions: zero bytes at the end of what a guest ' +
      'gives are dropped, because some agents end a text as C does; and where the agent asks for the line ends of Windows, ' +
      'LF becomes CR LF on the way into the guest and CR LF becomes LF on the way out. A lone CR is left alone.',
  ],
  options: [
    { flags: '--backend <name>', text: 'the clipboard of the host', default: 'auto', choices: BACKENDS },
    {
      flags: '--direction <way>',
      text: 'who may paste what the other one has copied',
      default: 'both',
      choices: ['both', 'to-guest', 'to-host'],
    },
    { flags: '--limit <size>', text: 'largest content', default: '32M' },
    { flags: '--types <list>', text: 'only these: text, image, png, bmp, tiff, jpeg or MIME types, with commas' },
    { flags: '--primary', text: 'also the selection that the middle button pastes' },
    { flags: '--timeout <seconds>', text: 'give up where no agent answers within this time' },
    { flags: '--port <port>', text: 'name or number of the port; com.redhat.spice.0 where it is left out' },
    {
      flags: '--socket <path>',
      text: 'the unix socket that the port leads to, where no device process of ours has it',
      complete: 'file',
    },
    ...CONTROL_OPTIONS,
    { ...JSON_OPTION, text: 'print a line of JSON for each event' },
  ],
  examples: [
    {
      text: 'A guest with a clipboard:',
      command: 'vmchannel qemu -virtioserial attach,name=com.redhat.spice.0 -m 2G disk.img',
    },
    { text: 'Share it:', command: 'vmchannel clipboard' },
    { text: 'Text alone, and only out of the guest:', command: 'vmchannel clipboard --direction to-host --types text' },
  ],
  load: async () => (await import('./clipboard.ts')).clipboardCommand,
}
