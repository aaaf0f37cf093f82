/** Rows of the command table: this machine, the guest's files, and help. */

import { QEMU_BINARY } from './commands-vm.ts'
import { CLIPBOARD } from './commands-clipboard.ts'
import { DISK_FORMATS } from '../inspect/disk-formats.ts'
import { JSON_OPTION, type CommandRow, type OptionRow } from './table.ts'

const DOCTOR: CommandRow = {
  name: 'doctor',
  summary: 'say what works on this machine and what to do about the rest',
  text: ['Exit status 0 where VMs can run (warnings are no failure), 9 where they cannot.'],
  options: [QEMU_BINARY, JSON_OPTION],
  examples: [{ text: 'Check this machine:', command: 'vmchannel doctor' }],
  load: async () => (await import('./doctor.ts')).doctorCommand,
}

const INSPECT: CommandRow = {
  name: 'inspect',
  summary: 'say what is on a disk image: file systems, operating system, applications',
  text: [
    "Boots libguestfs's appliance with our device and asks the daemon in it: the image is not mounted on the host, " +
      'nothing is written to it, and root is not needed. Values are those of virt-inspector. The appliance comes with ' +
      'the package libguestfs0 (Debian, Ubuntu) or libguestfs-appliance (Fedora), or is the folder that ' +
      'LIBGUESTFS_PATH names.',
    'Nothing but the files that are named here is opened: an image that names another one (a backing file, an extent, a ' +
      'parent) is refused, since whoever made it could have named any file of this host; "qemu-img convert" makes one file ' +
      'of it. The QEMU that reads the image gets it as a descriptor, cannot start programs, and runs as nobody where this ' +
      'is root.',
    'A guest that has several disks may want them all, in its order: a volume group or a RAID is whole only then. ' +
      'A partition table for sectors of 4096 bytes is recognised in a raw image; convert another one to raw first.',
    'Snapshots of a btrfs root are counted, not listed. What is encrypted is named, and not opened.',
  ],
  args: [{ name: 'DISK', text: 'the image, or a block device; the disks of one guest', many: true, complete: 'file' }],
  options: [
    { flags: '-a, --applications', text: 'list what is installed; --json always does' },
    { flags: '--format <format>', text: 'format of the image; looked for in it where left out', choices: DISK_FORMATS },
    QEMU_BINARY,
    JSON_OPTION,
  ],
  examples: [
    { text: 'What is this?', command: 'vmchannel inspect disk.qcow2' },
    {
      text: 'A guest on two disks:',
      command: 'vmchannel inspect system.qcow2 data.qcow2',
    },
    {
      text: 'Names of all packages:',
      command: "vmchannel inspect --json disk.img | jq -r '.systems[].applications[].name'",
    },
  ],
  load: async () => (await import('./inspect.ts')).inspectCommand,
}

const MDEV: OptionRow = { flags: '--mdev', text: 'for mdev of busybox instead of udev' }
const ROOT_DIR: OptionRow = {
  flags: '--root <dir>',
  text: 'the top of the tree to work on, e.g. a mounted image',
  default: '/',
  complete: 'directory',
}
const ACCESS: readonly OptionRow[] = [
  { flags: '--group <group>', text: 'group of the device nodes, so that its members may open them' },
  { flags: '--mode <mode>', text: 'permission bits of the device nodes, octal; default 0600, with --group 0660' },
]

export const UDEV_PARTS = ['installer', 'helper', 'rules', 'mdev.conf'] as const

const UDEV: CommandRow = {
  name: 'udev',
  summary: 'give a guest the names /dev/vmch0, /dev/vmch1, ...',
  text: [
    'A Linux guest calls a port /dev/vport1p2, and /dev/virtio-ports/NAME where it has a name. These rules add ' +
      '/dev/vmch0, /dev/vmch1, ... for generic ports: a port named vmchN gets that name, the others the lowest number ' +
      'that is free, for as long as they live. Consoles (hvc) get none. Rules and helper are small files; the guest ' +
      'needs no Node and no vmchannel.',
    'To tell consoles apart the helper reads debugfs, mounting it for a moment where it is not mounted. In a kernel ' +
      'without debugfs it takes port 0 of each device for a console and no other.',
  ],
  commands: [
    {
      name: 'print',
      summary: 'print a shell script that installs them in a guest',
      options: [
        MDEV,
        ...ACCESS,
        { flags: '--part <part>', text: 'print this instead', default: 'installer', choices: UDEV_PARTS },
        JSON_OPTION,
      ],
      examples: [
        { text: 'Install in a guest that can be reached:', command: 'vmchannel udev print | ssh root@guest sh' },
        { text: 'Install in an image:', command: 'vmchannel udev print | sh -s -- --root /mnt/image' },
        { text: 'Only the rules:', command: 'vmchannel udev print --part rules' },
      ],
      load: async () => (await import('./udev.ts')).printUdev,
    },
    {
      name: 'install',
      summary: 'install them in this system, or in a tree',
      options: [MDEV, ...ACCESS, ROOT_DIR, JSON_OPTION],
      examples: [{ text: 'Into an image:', command: 'vmchannel udev install --root /mnt/image' }],
      load: async () => (await import('./udev.ts')).installUdev,
    },
    {
      name: 'uninstall',
      summary: 'remove what install wrote',
      options: [ROOT_DIR, JSON_OPTION],
      examples: [{ text: 'From this system:', command: 'vmchannel udev uninstall' }],
      load: async () => (await import('./udev.ts')).uninstallUdev,
    },
  ],
}

const COMPLETION: CommandRow = {
  name: 'completion',
  summary: 'print the completion script of a shell',
  args: [{ name: 'SHELL', text: 'which shell', choices: ['bash', 'zsh', 'fish'] }],
  examples: [
    {
      text: 'bash, for this user:',
      command: 'vmchannel completion bash >~/.local/share/bash-completion/completions/vmchannel',
    },
    { text: 'zsh, in a directory of fpath:', command: 'vmchannel completion zsh >~/.zfunc/_vmchannel' },
    { text: 'fish:', command: 'vmchannel completion fish >~/.config/fish/completions/vmchannel.fish' },
  ],
  load: async () => (await import('./completion.ts')).completionCommand,
}

const HELP: CommandRow = {
  name: 'help',
  summary: 'print help on a command or a topic: ports, config, environment, exit-codes',
  args: [{ name: 'TOPIC', text: 'a command, or a topic', optional: true, many: true }],
  examples: [{ text: 'What the exit status says:', command: 'vmchannel help exit-codes' }],
  load: async () => (await import('./help.ts')).helpCommand,
}

export const HOST_COMMANDS: readonly CommandRow[] = [DOCTOR, INSPECT, CLIPBOARD, UDEV, COMPLETION, HELP]
