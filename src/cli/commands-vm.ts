/** Rows of the command table: what starts devices. */

import type { CommandRow, OptionRow } from './table.ts'

const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const

const STATE_DIR: OptionRow = {
  flags: '--state-dir <dir>',
  text: 'where control sockets and default device sockets go; default $XDG_RUNTIME_DIR/vmchannel, else /run or /tmp',
  env: 'VMCHANNEL_STATE_DIR',
  complete: 'directory',
}

const LOG: OptionRow = {
  flags: '--log <level>',
  text: 'how much the device process tells on standard error',
  env: 'VMCHANNEL_LOG',
  default: 'warn',
  choices: LOG_LEVELS,
}

const KEEPER: OptionRow = {
  flags: '--keeper <on|off>',
  text: 'a second small process holds all connections and starts the device process again if that dies',
  env: 'VMCHANNEL_KEEPER',
  default: 'on',
  choices: ['on', 'off'],
}

export const QEMU_BINARY: OptionRow = {
  flags: '--qemu-binary <path>',
  text: 'the QEMU to run; default: the first qemu-system-x86_64 on PATH',
  env: 'VMCHANNEL_QEMU',
  complete: 'file',
}

const QEMU: CommandRow = {
  name: 'qemu',
  summary: 'run QEMU with our virtio-serial device plugged in',
  text: [
    "Our own options come first; from the first word that is none of them, everything is QEMU's and handed over as it " +
      'stands ("--" ends our options early). Among QEMU\'s arguments -virtioserial SPEC, any number of them, makes a ' +
      'port: a name vmchN or the order in which they stand decides which /dev/vmchN it is in the guest. See ' +
      '"vmchannel help ports" for SPEC, and "vmchannel help transports" for a QEMU older than 10.1.',
    "QEMU's own -device virtio-serial-pci, virtserialport and virtconsole with their -chardev move onto our device, so " +
      'that existing command lines work unchanged. Shared memory is added to fit -m, -machine, -object and -numa. ' +
      'Questions to QEMU (-help, -version, -machine none, -device help) go straight through.',
    '-virtioserial-device OPTIONS, among them, says more about the device of -virtioserial: id, bus, addr, multifunction, ' +
      'acpi-index, max_ports (31) and vectors, as -device virtio-serial-pci has them. vectors is the number of MSI-X ' +
      "interrupts, 0 for none. It is 2 where nothing is said, for every device of vmchannel as for QEMU's own: one for " +
      'all queues. Stock Linux uses either 2 or one for each queue (vectors=65 for 31 ports), and with one processor it ' +
      'has about 200 for all devices: a device that gets none does not work.',
    "This process becomes QEMU: process id, standard streams, signals and exit status are QEMU's own. The device runs " +
      'in a process beside it, which ends and removes its sockets when QEMU ends, however it ends.',
    'vmchannel-qemu is the same without options of ours, for what starts QEMU by itself: <emulator> of libvirt, ' +
      'LIBGUESTFS_HV of libguestfs. Its settings are the variables VMCHANNEL_QEMU, VMCHANNEL_LOG, VMCHANNEL_STATE_DIR, VMCHANNEL_KEEPER.',
  ],
  args: [{ name: 'QEMU-ARGUMENTS', text: '-virtioserial SPEC and whatever QEMU takes', optional: true, many: true }],
  options: [
    QEMU_BINARY,
    { flags: '--dry-run', text: 'start nothing; print the command line that QEMU would get, quoted for a shell' },
    { flags: '--json', text: 'with --dry-run: print the whole plan as JSON' },
    STATE_DIR,
    KEEPER,
    LOG,
  ],
  verbatim: true,
  examples: [
    {
      text: 'One port; the socket listens on the host, /dev/vmch0 is in the guest:',
      command: 'vmchannel qemu -virtioserial unix:/tmp/guest.sock -m 1G -nographic disk.img',
    },
    {
      text: 'Two named ports and a console, with KVM:',
      command:
        'vmchannel qemu -accel kvm -m 2G -virtioserial unix:/tmp/agent.sock,name=org.qemu.guest_agent.0 \\\n' +
        '  -virtioserial tcp:127.0.0.1:4555,name=org.example.0 -virtioserial pty,console=on disk.img',
    },
    {
      text: 'An existing command line, and what becomes of it:',
      command:
        'vmchannel qemu --dry-run -m 1G -device virtio-serial-pci \\\n' +
        '  -chardev socket,id=c,path=/tmp/c.sock,server=on,wait=off -device virtserialport,chardev=c,name=org.example.0',
    },
    {
      text: 'libguestfs on our device:',
      command: 'LIBGUESTFS_HV="$(command -v vmchannel-qemu)" guestfish --ro -a disk.img -i',
    },
  ],
  load: async () => (await import('./qemu.ts')).qemuCommand,
}

const SERVE: CommandRow = {
  name: 'serve',
  summary: 'run devices for a QEMU that you start yourself',
  text: [
    'Runs in the foreground and prints the arguments to give QEMU, shared memory included. A QEMU may come, go and come ' +
      'again. Ends at SIGINT or SIGTERM; sockets go with it. Under systemd (Type=notify) it says when it is ready.',
    'Flags win over variables, variables over the file. --socket, --max-ports, --transport and --port are those of the VM that --vm ' +
      'names, or of the only one; --port takes the place of all ports that the file gives it. The file is TOML: see ' +
      '"vmchannel help config", and --print-config for what comes of it all.',
  ],
  options: [
    { flags: '-c, --config <file>', text: 'read a configuration file', env: 'VMCHANNEL_CONFIG', complete: 'file' },
    { flags: '--vm <name>', text: 'name of the VM', env: 'VMCHANNEL_VM', default: 'vm0' },
    {
      flags: '--socket <path>',
      text: 'socket for QEMU; default in the state directory',
      env: 'VMCHANNEL_SOCKET',
      complete: 'file',
    },
    { flags: '-p, --port <spec>', text: 'a port; may be given many times', many: true },
    { flags: '--max-ports <n>', text: 'room for so many ports, 1 to 511; default 31', env: 'VMCHANNEL_MAX_PORTS' },
    {
      flags: '--transport <kind>',
      text: 'a PCI device over vfio-user (default), or user networking: see "vmchannel help transports"',
      choices: ['vfio-user', 'usernet'],
    },
    {
      flags: '-m, --memory <size>',
      text: 'memory of the guest, for the printed arguments',
      env: 'VMCHANNEL_MEMORY',
      default: '512M',
    },
    {
      flags: '--control <path>',
      text: 'control socket; default in the state directory',
      env: 'VMCHANNEL_CONTROL',
      complete: 'file',
    },
    STATE_DIR,
    KEEPER,
    LOG,
    { flags: '--print-config', text: 'print what would be served, as a configuration file, and end' },
    { flags: '--json', text: 'print the arguments as one line of JSON' },
  ],
  examples: [
    {
      text: 'One VM with one port:',
      command: 'vmchannel serve --port unix:/tmp/guest.sock,name=org.example.0 --memory 2G',
    },
    {
      text: 'As a file says, with another memory size:',
      command: 'vmchannel serve --config /etc/vmchannel/vms.toml --memory 4G',
    },
    { text: 'Make a file out of flags:', command: 'vmchannel serve --port unix:/tmp/a.sock --print-config >vm.toml' },
  ],
  load: async () => (await import('./serve.ts')).serveCommand,
}

export const VM_COMMANDS: readonly CommandRow[] = [QEMU, SERVE]
