/**
 * PCI slots move when a -device becomes one in JSON: QEMU 11.1 makes those after all classic ones, and only JSON can say
 * where the socket of a vfio-user device is. Called by plan.ts.
 */

import { argumentOptions, describeArgument, type Argument } from './command-line.ts'
import { hasOption, optionText } from './option.ts'
import { PORT_DRIVERS, type SerialDevice } from './serial.ts'

/** Drivers that take no PCI slot. One that is missing here costs a needless refusal in slotTrouble, no more. */
const NOT_PCI = new RegExp(
  '^(usb-(?!ehci)|scsi-|ide-|isa-|sd-|emmc|floppy|hda-|nvme-(ns|subsys)|ccid-|u2f-|i2c-|smbus-|tpm-|ipmi-bmc-|hv-|hyperv|' +
    'vm(genid|coreinfo|clock|mouse|bus-bridge)$|(intel|amd)-iommu$|(guest-)?loader$|ramfb$|pvpanic$|pc-dimm$|nvdimm$|sp-mem$)|' +
    '-(device|cpu)$',
)
const NETWORK = /^(e1000|rtl8139|vmxnet3|pcnet|ne2k_pci|i82|igb|virtio-net)/

/** Slots that a machine's own devices may take before the first -device. */
const OWN_SLOTS = 8

/** -device without addr=, made in the classic form or in JSON. */
function automatic(list: readonly Argument[]): Argument[] {
  return list.filter((argument) => {
    const option = argument.name === 'device' ? argumentOptions(argument) : undefined
    const driver = option && optionText(option, 'driver')
    if (!option || driver === undefined || PORT_DRIVERS.has(driver) || NOT_PCI.test(driver)) return false
    return !hasOption(option, 'addr')
  })
}

/** The reason where another device could be given the slot that this one asks for. */
export function slotTrouble(device: SerialDevice, list: readonly Argument[]): string | undefined {
  const addr = device.option.json ? undefined : optionText(device.option, 'addr')
  if (addr === undefined) return undefined
  const slot = Number.parseInt(addr, 16)
  const others = automatic(list)
  const [first] = others
  if (!first || slot > OWN_SLOTS + others.length) return undefined
  return `${describeArgument(first)} and others without addr= could be given its PCI slot ${addr}`
}

/** Network cards are named by their slot: say so where one moves. */
export function slotWarning(device: SerialDevice, list: readonly Argument[]): string[] {
  if (device.option.json || hasOption(device.option, 'addr')) return []
  const after = automatic(list.slice(list.indexOf(device.argument) + 1))
  const card = after.find((argument) => {
    const option = argumentOptions(argument)
    return option && !option.json && NETWORK.test(optionText(option, 'driver') ?? '')
  })
  if (!card) return []
  return [
    `${describeArgument(card)}: moves to the PCI slot before the one that it has without vmchannel, and may change ` +
      'its name in the guest; give it addr= to choose the slot',
  ]
}
