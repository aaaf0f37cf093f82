/** The root of the command table; the rows of each area are in a file of their own. */

import { AGENT_COMMANDS } from './commands-agent.ts'
import { GUEST_COMMANDS } from './commands-guest.ts'
import { HOST_COMMANDS } from './commands-host.ts'
import { PORT_COMMANDS } from './commands-port.ts'
import { VM_COMMANDS } from './commands-vm.ts'
import type { CommandRow } from './table.ts'

export const ROOT: CommandRow = {
  name: 'vmchannel',
  summary: 'virtio-serial for QEMU: host and guest talk without a network',
  text: [
    'A virtio-serial device in a process of its own, plugged into unmodified QEMU (10.1 or newer) over vfio-user. The ' +
      'guest needs nothing but the stock Linux driver, virtio_console: what a program on the host writes into a socket, ' +
      'a program in the guest reads from /dev/vmch0, and back.',
  ],
  options: [
    { flags: '-V, --version', text: 'print the version' },
    { flags: '-h, --help', text: 'print help; also "vmchannel help COMMAND", "vmchannel help exit-codes"' },
  ],
  examples: [
    {
      text: 'Start a guest whose /dev/vmch0 is the socket /tmp/guest.sock on the host:',
      command: 'vmchannel qemu -virtioserial unix:/tmp/guest.sock -m 1G -nographic disk.img',
    },
    { text: 'Talk to it:', command: 'socat - UNIX-CONNECT:/tmp/guest.sock' },
    {
      text: 'Give the guest one more port while it runs:',
      command: 'vmchannel port add unix:/tmp/two.sock,name=org.example.two',
    },
    { text: 'See whether all that can work here:', command: 'vmchannel doctor' },
  ],
  commands: [...VM_COMMANDS, ...PORT_COMMANDS, ...AGENT_COMMANDS, ...HOST_COMMANDS, ...GUEST_COMMANDS],
}

/** The row that words like ["port", "add"] name, with the rows above it; undefined where there is none. */
export function findCommand(words: readonly string[]): CommandRow | undefined {
  let row: CommandRow | undefined = ROOT
  for (const word of words) row = row?.commands?.find((one) => one.name === word)
  return row
}
