/** Rows of the command table: what runs inside a guest. */

import type { CommandRow } from './table.ts'

const GUEST: CommandRow = {
  name: 'guest',
  summary: 'inside a guest: drive a virtio-serial device without the kernel driver',
  text: [
    "Takes a virtio-serial device of this guest, ours or QEMU's own, from the kernel and drives it from user space: " +
      '/dev/vmch0, /dev/vmch1, ... and /dev/virtio-ports/NAME are real character devices, made through CUSE, and come ' +
      'and go with the ports. Ends at SIGINT or SIGTERM, and gives the device back to the kernel. Where that is not ' +
      'possible, so that the device is left without a driver, it says how to do it by hand, and the exit status is 9.',
    'A device that asks for a reset gets one, with new ports; one that asks more than five times within a minute is given ' +
      'up (exit status 70).',
    'Takes root, Linux, the kernel modules cuse and uio_pci_generic, and huge pages for the rings; with a device behind ' +
      'an IOMMU vfio-pci instead, without huge pages. What is missing is said by name.',
    'With --usernet the ports come over a network card of user networking instead of a device (transport=usernet on the ' +
      'host; see "vmchannel help transports"), with the same nodes. Takes root, cuse and virtio_net, and an address on that card.',
  ],
  options: [
    {
      flags: '--device <address>',
      text: 'PCI address, as lspci -D prints it; default: the first virtio-serial device',
    },
    {
      flags: '--driver <kind>',
      text: 'how to reach it; default: vfio behind an IOMMU, uio elsewhere',
      choices: ['uio', 'vfio'],
    },
    { flags: '--usernet', text: 'over user networking' },
    { flags: '--address <ip:port>', text: 'with --usernet: where the host end is; default 10.118.109.100:7644' },
    { flags: '--share', text: 'let several programs have a port open at a time' },
    { flags: '--force', text: 'take the device even though programs have its ports open' },
    { flags: '-q, --quiet', text: 'say nothing but warnings and errors' },
  ],
  examples: [
    { text: 'In the guest:', command: 'sysctl vm.nr_hugepages=32 && modprobe cuse uio_pci_generic && vmchannel guest' },
    {
      text: 'Over user networking:',
      command: 'ip link set eth0 up && ip addr add 10.118.109.15/24 dev eth0 && vmchannel guest --usernet',
    },
  ],
  load: async () => (await import('./guest.ts')).guestCommand,
}

export const GUEST_COMMANDS: readonly CommandRow[] = [GUEST]
