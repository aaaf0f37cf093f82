/** Rows of the command table: the guest's agent, and what is done with it. */

import { CONTROL_OPTIONS, JSON_OPTION, type CommandRow, type OptionRow } from './table.ts'

/** How an agent is found. */
const WHERE: readonly OptionRow[] = [
  { flags: '--port <port>', text: 'name or number of its port; org.qemu.guest_agent.0 where it is left out' },
  {
    flags: '--socket <path>',
    text: 'the unix socket that the port leads to, where no device process of ours has it',
    complete: 'file',
  },
  ...CONTROL_OPTIONS,
]

const OPTIONS: readonly OptionRow[] = [
  {
    flags: '--timeout <seconds>',
    text: 'how long the agent may take to answer, a program to end, a file to be copied',
  },
  ...WHERE,
  JSON_OPTION,
]

const VIA: OptionRow = {
  flags: '--via <way>',
  text: 'port adds a port for the file (fast), commands uses the file commands of the agent; a port where there can be one',
  choices: ['port', 'commands'],
}

const PING: CommandRow = {
  name: 'ping',
  summary: 'see whether the agent answers, and how fast',
  options: OPTIONS,
  examples: [{ text: 'Wait a minute for a guest that starts:', command: 'vmchannel agent ping --timeout 60' }],
  load: async () => (await import('./agent.ts')).agentPing,
}

const INFO: CommandRow = {
  name: 'info',
  summary: 'the guest: system, host name, addresses, users; the agent: version and commands',
  options: OPTIONS,
  examples: [{ text: 'All of it, for a program:', command: 'vmchannel agent info --json' }],
  load: async () => (await import('./agent.ts')).agentInfo,
}

const EXEC: CommandRow = {
  name: 'exec',
  summary: 'run a program in the guest, with its output and exit status',
  text: [
    'The exit status is that of the program, 128 + N where signal N ended it. Output comes when the program has ended, ' +
      'each stream up to 16 MiB. An interrupt (Ctrl-C) or the end of the time kills it in the guest.',
    'With --json: status, signal, stdout and stderr (as text; base64 where it is none) and whether something was left out.',
    'Without --json its output comes out as it is: what the guest writes, the terminal obeys.',
  ],
  args: [
    { name: 'PROGRAM', text: 'program to run, by name or path' },
    { name: 'ARG', text: 'its arguments', optional: true, many: true },
  ],
  options: [
    ...OPTIONS,
    { flags: '-i, --stdin', text: 'give it what stands on standard input, at most 8 MiB' },
    { flags: '-e, --env <name=value>', text: 'a variable for it, instead of those of the agent', many: true },
  ],
  trailing: true,
  examples: [
    { text: 'As root in the guest:', command: 'vmchannel agent exec uname -a' },
    { text: 'A pipe through the guest:', command: "printf '3\\n1\\n2\\n' | vmchannel agent exec --stdin sort -n" },
  ],
  load: async () => (await import('./agent-exec.ts')).agentExec,
}

const GET: CommandRow = {
  name: 'get',
  summary: 'copy a file of the guest to the host',
  text: [
    'With - the content comes out on standard output as it is: what the guest writes, the terminal obeys. In a terminal, ' +
      'give it to a program that shows control characters.',
  ],
  args: [
    { name: 'REMOTE', text: 'path in the guest' },
    {
      name: 'LOCAL',
      text: 'path on the host, - for standard output; the same name here where it is left out',
      optional: true,
      complete: 'file',
    },
  ],
  options: [...OPTIONS, VIA],
  examples: [{ text: 'Look at the log of the guest:', command: 'vmchannel agent get /var/log/syslog - | less' }],
  load: async () => (await import('./agent-file.ts')).agentGet,
}

const PUT: CommandRow = {
  name: 'put',
  summary: 'copy a file of the host into the guest',
  args: [
    { name: 'LOCAL', text: 'path on the host, - for standard input', complete: 'file' },
    { name: 'REMOTE', text: 'path in the guest' },
  ],
  options: [...OPTIONS, VIA, { flags: '--mode <mode>', text: 'permission bits of the file, octal' }],
  examples: [{ text: 'A program:', command: 'vmchannel agent put --mode 0755 tool /usr/local/bin/tool' }],
  load: async () => (await import('./agent-file.ts')).agentPut,
}

const FREEZE: CommandRow = {
  name: 'fsfreeze',
  summary: 'freeze the file systems of the guest, for a snapshot; fsthaw ends that',
  args: [{ name: 'MOUNTPOINT', text: 'only these', optional: true, many: true }],
  options: OPTIONS,
  examples: [
    {
      text: 'A snapshot of a disk at rest:',
      command: 'vmchannel agent fsfreeze && take-snapshot; vmchannel agent fsthaw',
    },
  ],
  load: async () => (await import('./agent.ts')).agentFreeze,
}

const THAW: CommandRow = {
  name: 'fsthaw',
  summary: 'end fsfreeze',
  options: OPTIONS,
  examples: [{ text: 'Whoever froze them:', command: 'vmchannel agent fsthaw' }],
  load: async () => (await import('./agent.ts')).agentThaw,
}

const STATUS: CommandRow = {
  name: 'fsstatus',
  summary: 'say whether the file systems of the guest are frozen',
  options: OPTIONS,
  examples: [{ text: 'One word, frozen or thawed:', command: 'vmchannel agent fsstatus' }],
  load: async () => (await import('./agent.ts')).agentStatus,
}

const SHUTDOWN: CommandRow = {
  name: 'shutdown',
  summary: 'ask the guest to go down',
  options: [
    ...OPTIONS,
    { flags: '--mode <mode>', text: 'how', default: 'powerdown', choices: ['powerdown', 'reboot', 'halt'] },
  ],
  examples: [{ text: 'Start it again:', command: 'vmchannel agent shutdown --mode reboot' }],
  load: async () => (await import('./agent.ts')).agentShutdown,
}

const CALL: CommandRow = {
  name: 'call',
  summary: 'any other command of the agent; prints its answer as JSON',
  args: [
    { name: 'COMMAND', text: 'its name; "vmchannel agent info" lists them' },
    { name: 'ARGUMENTS', text: 'a JSON object', optional: true },
  ],
  options: OPTIONS,
  examples: [{ text: 'Memory blocks, processors, disks:', command: 'vmchannel agent call guest-get-vcpus' }],
  load: async () => (await import('./agent.ts')).agentCall,
}

const SCREENLOCK: CommandRow = {
  name: 'screenlock',
  summary: 'lock the screen of a guest when its last VNC viewer has gone',
  text: [
    'Watches QEMU over QMP; when nobody who got through the handshake is left, has the sessions in the guest locked ' +
      '(loginctl lock-sessions), looks whether they are (LockedHint), tries again, and says so where they are not. Where ' +
      'the guest cannot be asked, it goes on trying. Unlocks nothing, ever. Ends with QEMU.',
    'The guest needs a locker in its session (GNOME and KDE have one; light-locker, xss-lock), and qemu-guest-agent with ' +
      'guest-exec, or our own small agent, which can do nothing but lock: --guest-script prints its installer, and the ' +
      'VM needs a port named org.vmchannel.lock.0 then.',
    'On a unix socket QEMU does not tell one VNC connection from another: there they are counted.',
  ],
  args: [
    {
      name: 'QMP',
      text: "QEMU's QMP socket, of -qmp unix:PATH,server=on,wait=off; it takes one program at a time",
      optional: true,
      complete: 'file',
    },
  ],
  options: [
    ...WHERE,
    {
      flags: '--via <way>',
      text: 'agent is qemu-guest-agent, port our own; the latter where the VM has its port',
      choices: ['agent', 'port'],
    },
    { flags: '--guest-script', text: 'print a shell script that installs our own agent in a guest, and end' },
    { ...JSON_OPTION, text: 'print a line of JSON for each event' },
  ],
  examples: [
    { text: 'Beside a QEMU with -vnc and -qmp:', command: 'vmchannel screenlock /run/vm/qmp.sock' },
    {
      text: 'Our own agent into a guest:',
      command: 'vmchannel screenlock --guest-script | vmchannel agent exec --stdin sh',
    },
  ],
  load: async () => (await import('./screenlock.ts')).screenlockCommand,
}

export const AGENT_COMMANDS: readonly CommandRow[] = [
  {
    name: 'agent',
    summary: 'run programs and copy files in a guest with qemu-guest-agent, freeze its disks',
    text: [
      'The guest needs the package qemu-guest-agent, and a port named org.qemu.guest_agent.0 that leads to "attach" or to ' +
        'a socket. No network is involved. --socket takes the agent of any other virtual machine.',
    ],
    commands: [PING, INFO, EXEC, GET, PUT, FREEZE, THAW, STATUS, SHUTDOWN, CALL],
    examples: [
      {
        text: 'A guest with an agent:',
        command: 'vmchannel qemu -virtioserial attach,name=org.qemu.guest_agent.0 -m 1G disk.img',
      },
      { text: 'Is it there?', command: 'vmchannel agent ping' },
    ],
  },
  SCREENLOCK,
]
