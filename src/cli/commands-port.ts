/** Rows of the command table: what steers a device that runs. */

import { CONTROL_OPTIONS, JSON_OPTION, type ArgumentRow, type CommandRow } from './table.ts'

const PORT: ArgumentRow = { name: 'PORT', text: 'a port by its name or its number', complete: 'port' }

const LIST: CommandRow = {
  name: 'list',
  summary: 'list ports: where they lead, who has them open',
  text: ['Without --vm and --control: the ports of all devices of this user that run.'],
  options: [...CONTROL_OPTIONS, JSON_OPTION],
  examples: [
    { text: 'All ports:', command: 'vmchannel port list' },
    {
      text: 'Names of the ports that a guest program has open:',
      command: "vmchannel port list --json | jq -r '.[] | select(.guestOpen) | .name'",
    },
  ],
  load: async () => (await import('./port.ts')).listPorts,
}

const ADD: CommandRow = {
  name: 'add',
  summary: 'add a port while the guest runs',
  text: ['See "vmchannel help ports" for SPEC.'],
  args: [{ name: 'SPEC', text: 'where the port leads, and its name' }],
  options: [...CONTROL_OPTIONS, JSON_OPTION],
  examples: [
    { text: 'A named port on a socket:', command: 'vmchannel port add unix:/tmp/two.sock,name=org.example.two' },
    { text: 'A port for "vmchannel connect":', command: 'vmchannel port add attach,name=org.example.shell' },
  ],
  load: async () => (await import('./port.ts')).addPort,
}

const REMOVE: CommandRow = {
  name: 'remove',
  summary: 'remove a port; a program of the guest that has it open gets end of file',
  args: [PORT],
  options: [...CONTROL_OPTIONS, JSON_OPTION],
  examples: [{ text: 'By name:', command: 'vmchannel port remove org.example.two' }],
  load: async () => (await import('./port.ts')).removePort,
}

const RESIZE: CommandRow = {
  name: 'resize',
  summary: "tell the guest the size of a console port's terminal",
  args: [PORT, { name: 'COLSxROWS', text: 'size in characters, e.g. 80x24' }],
  options: [...CONTROL_OPTIONS, JSON_OPTION],
  examples: [{ text: 'As wide as this terminal:', command: 'vmchannel port resize 0 "$(tput cols)x$(tput lines)"' }],
  load: async () => (await import('./port.ts')).resizePort,
}

const STATS: CommandRow = {
  name: 'stats',
  summary: 'bytes in, out and dropped, and other counters of ports',
  args: [{ ...PORT, optional: true, text: 'only this port, with all its counters' }],
  options: [
    ...CONTROL_OPTIONS,
    { flags: '-w, --watch', text: 'again every second, with rates, until interrupted; with --json a line each time' },
    JSON_OPTION,
  ],
  examples: [
    { text: 'All ports, in a table:', command: 'vmchannel port stats' },
    { text: 'Follow one port:', command: 'vmchannel port stats org.example.0 --watch' },
  ],
  load: async () => (await import('./port-stats.ts')).portStats,
}

const CONNECT: CommandRow = {
  name: 'connect',
  summary: 'join this terminal, or a pipe, to a port',
  text: [
    'Standard input goes to the guest, what the guest writes comes to standard output. A terminal is put into raw mode: ' +
      'every key goes to the guest but the escape character, Ctrl-], which ends the connection. The size of the terminal ' +
      'goes along for a console port.',
    'At the end of standard input the output goes on until the port ends the connection, unless --exit-on-eof is given. ' +
      'The port must lead to a place one can connect to: attach (the device process itself), unix, tcp or pty.',
    'The bytes of the guest come out as they are, in a terminal as in a pipe: what the guest writes, the terminal obeys. ' +
      'Everything else that vmchannel prints is escaped.',
  ],
  args: [PORT],
  options: [
    ...CONTROL_OPTIONS,
    { flags: '--exit-on-eof', text: 'end when standard input ends, as soon as all of it is on its way' },
    { flags: '--escape <char>', text: 'another escape character: ^A to ^_, or "none"', default: '^]' },
  ],
  examples: [
    { text: 'Log in on the console of the guest:', command: 'vmchannel connect 0' },
    { text: 'Send a file:', command: 'vmchannel connect org.example.0 --exit-on-eof <file' },
  ],
  load: async () => (await import('./connect.ts')).connectCommand,
}

export const PORT_COMMANDS: readonly CommandRow[] = [
  {
    name: 'port',
    summary: 'list, add, remove, resize and measure ports of a device that runs',
    text: ['They find the device process by its control socket, which only its owner may use.'],
    commands: [LIST, ADD, REMOVE, RESIZE, STATS],
    examples: [{ text: 'All ports of all devices:', command: 'vmchannel port list' }],
  },
  CONNECT,
]
