/** Help on what belongs to no single command. In `vmchannel help TOPIC` and in the man page. */

import { EXIT_CODES, type ErrorCode } from '../errors.ts'

/** Text, or rows of a table: term and what it means. */
export type TopicPart = string | readonly (readonly [string, string])[]

export interface Topic {
  name: string
  title: string
  parts: readonly TopicPart[]
}

const MEANING: Readonly<Record<ErrorCode, string>> = {
  ERR_VMCHANNEL_USAGE: 'an option, a port specification or an entry of a configuration file is wrong',
  ERR_VMCHANNEL_CHARDEV:
    'a socket, or the place where a port leads, cannot be opened: no directory, no permission, refused',
  ERR_VMCHANNEL_IN_USE: 'a socket, a name or a number has an owner that lives',
  ERR_VMCHANNEL_NOT_FOUND: 'no such port, VM, device process or file',
  ERR_VMCHANNEL_PORT: 'not possible with this port: number out of range, no number free, wrong kind',
  ERR_VMCHANNEL_MEMORY: "the guest's memory cannot be shared",
  ERR_VMCHANNEL_QEMU: 'QEMU is missing, older than 10.1, or without vfio-user-pci',
  ERR_VMCHANNEL_PLATFORM: 'this operating system, kernel or Node lacks something',
  ERR_VMCHANNEL_CONTROL: 'the device process does not answer, or not sensibly',
  ERR_VMCHANNEL_CLOSED: 'the device or the port is gone',
  ERR_VMCHANNEL_ABORTED: 'interrupted',
  ERR_VMCHANNEL_TIMEOUT: 'it took too long',
  ERR_VMCHANNEL_DISK: 'a disk image that cannot be inspected: empty, damaged, encrypted, or none at all',
  ERR_VMCHANNEL_CLIPBOARD: 'content of a clipboard that its owner does not give, or that is too large',
  ERR_VMCHANNEL_AGENT: 'the agent in the guest refused, or could not do what it was asked',
  ERR_VMCHANNEL_INTERNAL: 'a mistake in vmchannel: please report it',
}

const EXIT_ROWS: readonly (readonly [string, string])[] = [
  ['0', 'done'],
  ['1', 'an error that has no number of its own'],
  ...Object.entries(EXIT_CODES).map(
    ([code, status]) => [String(status), `${MEANING[code as ErrorCode]} (${code})`] as const,
  ),
  ['130, 143', 'ended by SIGINT, SIGTERM'],
]

export const TOPICS: readonly Topic[] = [
  {
    name: 'ports',
    title: 'how a port is written: SPEC',
    parts: [
      'KIND:PLACE,OPTION=VALUE,... on the command line, in configuration files, over the control socket and in the ' +
        "library. The words are QEMU's where QEMU has one. A comma within a value is written twice.",
      [
        ['unix:PATH', 'a unix socket; listens unless server=off. mode=0660 sets its permission bits (0600)'],
        ['tcp:HOST:PORT', 'TCP; listens on the loopback address unless HOST is given; server=off connects'],
        ['pty[:LINK]', 'a pseudo-terminal, with a symbolic link to it'],
        ['stdio', 'standard input and output of vmchannel'],
        ['file:PATH', 'output into a file; append=on; input-path=FILE is what the guest reads'],
        ['pipe:PATH', 'fifos PATH.in and PATH.out, or PATH'],
        ['attach', 'for "vmchannel connect", and streams of the library'],
        ['null', 'takes all, gives nothing'],
      ],
      'Options of every port:',
      [
        ['name=NAME', '/dev/virtio-ports/NAME in the guest; vmchN: /dev/vmchN'],
        ['nr=N', 'port number; the next free one where it is left out; 0 is for a console'],
        ['console=on', 'a console: /dev/hvcN in the guest'],
        ['policy=WORD', 'output for a slow or absent peer: block (default), drop-oldest, drop-newest, discard'],
        ['buffer=SIZE', 'how much the drop policies keep'],
        [
          'on-close=WORD',
          'what is left when either end closes: discard, keep, drain (for drain-ms=N at most); left out: what the guest wrote for a host that has left is dropped, what the host wrote waits for the next guest program',
        ],
        ['cols=N,rows=N', "size of a console's terminal"],
      ],
      'Options of unix and tcp: server=on|off, wait=on (start only when the first peer is there), reconnect-ms=N ' +
        '(connect again after N ms at most), half-close-ms=N. Of tcp: keepalive-ms=N (an idle peer that answers no ' +
        'probe for N ms is gone, by default after 120000; 0: it may be gone unseen), nodelay=on|off, ipv4=on|off, ipv6=on|off.',
      'Example: unix:/run/vm.sock,name=org.example.0,policy=drop-oldest,buffer=1M',
    ],
  },
  {
    name: 'transports',
    title: 'which way a port takes: -virtioserial SPEC,transport=WORD',
    parts: [
      [
        ['auto', 'our device where this QEMU has vfio-user-pci (10.1 and newer), else "qemu"; the default'],
        ['vfio-user', 'our device, or an error that says why not'],
        [
          'qemu',
          "QEMU's own virtio-serial-pci, with the same names, numbers and nodes in the guest. No device process: the " +
            'port cannot be attach, policies and on-close have no effect, "vmchannel port" and "vmchannel connect" do not ' +
            'reach it; in return the machine can be migrated and restored',
        ],
        [
          'usernet',
          'one connection over user networking, for a guest without virtio-serial: QEMU gets a network card whose only ' +
            'neighbour is the device process (10.118.109.100, nothing else can be reached over it), and in the guest runs ' +
            '"vmchannel guest --usernet". The same ports, policies and commands; several times slower, and any program of ' +
            'the guest may connect',
        ],
      ],
      'What auto chose, and what each option loses by it, is said in one line each. Devices that the command line asks ' +
        'QEMU for (-device virtio-serial-pci) stay with a QEMU that has no vfio-user-pci.',
    ],
  },
  {
    name: 'config',
    title: 'the configuration file of "vmchannel serve"',
    parts: [
      'TOML. Ports are strings as on the command line, or tables with the same words. All entries may be left out.',
      '  state-dir = "/run/vmchannel-mine"\n  control = "/run/vmchannel-mine/control.sock"\n  log = "info"\n  memory = "2G"\n\n' +
        '  [[vm]]\n  name = "web"\n  socket = "/run/vmchannel-mine/web.sock"\n  max-ports = 31\n' +
        '  ports = [\n    "unix:/run/web.sock,name=org.example.0",\n' +
        '    { to = "pty", console = true, cols = 80, rows = 24 },\n  ]',
      'More entries of a [[vm]]: queue-size, iommu-platform, resize-order, transport, and vectors: MSI-X interrupts, 0 for ' +
        'none; default 2 (see "vmchannel help qemu").',
    ],
  },
  {
    name: 'environment',
    title: 'variables that are read',
    parts: [
      [
        ['VMCHANNEL_QEMU', 'the QEMU to run (qemu, vmchannel-qemu, inspect, doctor)'],
        ['VMCHANNEL_LOG', 'error, warn, info or debug: how much device processes tell on standard error'],
        ['VMCHANNEL_STATE_DIR', 'where device processes keep their sockets'],
        ['VMCHANNEL_HEARTBEAT', 'off: a device process that hangs is not replaced, for debugging'],
        ['VMCHANNEL_CONTROL', 'control socket (port, connect, serve)'],
        ['VMCHANNEL_VM', 'name of the VM (port, connect, serve)'],
        ['VMCHANNEL_CONFIG, VMCHANNEL_SOCKET, VMCHANNEL_MAX_PORTS, VMCHANNEL_MEMORY', 'as the options of serve'],
        ['VMCHANNEL_DEBUG', 'not empty: errors with the place in the program where they came up'],
        ['XDG_RUNTIME_DIR', 'state directories lie in its folder vmchannel'],
        ['NO_COLOR, FORCE_COLOR', 'no colours; colours also where the output is no terminal'],
        ['NOTIFY_SOCKET', 'where serve says that it is ready, as systemd wants it'],
      ],
    ],
  },
  {
    name: 'exit-codes',
    title: 'what the exit status says',
    parts: [
      EXIT_ROWS,
      "vmchannel qemu and vmchannel-qemu: once QEMU runs, the status is QEMU's own. doctor: 0 or 9.",
      'With --json an error is one line of JSON on standard error: {"error":{"code":"ERR_VMCHANNEL_...","message":"...",' +
        '"hint":"..."}}.',
    ],
  },
]
