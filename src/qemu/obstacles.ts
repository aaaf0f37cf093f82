/**
 * Runs in which a device of ours cannot be, with the reason and the next step. Called by plan.ts once it is clear that
 * there is one. `refuseIncoming` ends the run; the others end it only where the user asked for a port of ours, else
 * QEMU keeps its own device.
 */

import { VmchannelError } from '../errors.ts'
import { argumentOptions, describeArgument, type Argument } from './command-line.ts'
import { mergeOptions } from './memory.ts'
import { optionBoolean, optionText, type OptionString } from './option.ts'

/** A state saved by QEMU has nothing of our device in it, and QEMU would not say a word about that. */
export function refuseIncoming(list: readonly Argument[]): void {
  const argument = list.find((one) => one.name === 'incoming' || one.name === 'loadvm')
  if (!argument) return
  throw new VmchannelError(
    'ERR_VMCHANNEL_USAGE',
    `${describeArgument(argument)}: QEMU saves and restores a machine without the state of a vmchannel device, ` +
      'the guest would lose its channels without a message',
    {
      hint:
        'start the guest afresh; a machine that was saved with the virtio-serial device of QEMU itself ' +
        'can be restored by running QEMU directly, or with transport=qemu behind each -virtioserial',
    },
  )
}

/** Machines without a PCI bus, or without one unless asked for. */
const WITHOUT_PCI = new Set(['isapc', 'nitro'])

/** Why this machine cannot have the device; undefined where it can. */
export function machineObstacle(list: readonly Argument[]): VmchannelError | undefined {
  const machine = mergeOptions(list, 'machine')
  const type = optionText(machine, 'type') ?? ''
  if (WITHOUT_PCI.has(type)) {
    return new VmchannelError('ERR_VMCHANNEL_USAGE', `-machine ${type} has no PCI bus for the vmchannel device`, {
      hint: 'use -machine q35 or -machine pc',
    })
  }
  if (type === 'microvm' && optionBoolean(machine, 'pcie', false) !== true) {
    return new VmchannelError('ERR_VMCHANNEL_USAGE', '-machine microvm has no PCI bus for the vmchannel device', {
      hint: 'add pcie=on: -machine microvm,pcie=on',
    })
  }
  if (list.some((argument) => argument.name === 'only-migratable')) {
    return new VmchannelError(
      'ERR_VMCHANNEL_USAGE',
      '-only-migratable: a machine with a vmchannel device cannot be migrated, QEMU would lose its state',
      { hint: 'leave -only-migratable out, or give each -virtioserial transport=qemu' },
    )
  }
  return iommuObstacle(list)
}

/** Virtual IOMMUs as -device; those of the machine types that we run on are all of this kind. */
const IOMMU = /^(intel-iommu|amd-iommu|virtio-iommu-pci)$/

function iommus(list: readonly Argument[]): OptionString[] {
  const devices = list.flatMap((one) => (one.name === 'device' ? (argumentOptions(one) ?? []) : []))
  return devices.filter((option) => IOMMU.test(optionText(option, 'driver') ?? ''))
}

/** Whether what the guest gives a device as an address is translated before it is one. */
export function behindIommu(list: readonly Argument[]): boolean {
  return iommus(list).length > 0
}

/** A device in another process has to be told of each mapping, and not every IOMMU of QEMU hears of all of them. */
function iommuObstacle(list: readonly Argument[]): VmchannelError | undefined {
  for (const option of iommus(list)) {
    const driver = optionText(option, 'driver')!
    const needed = { 'intel-iommu': 'caching-mode', 'amd-iommu': 'dma-remap' }[driver]
    if (needed === undefined || optionBoolean(option, needed, false) === true) continue
    return new VmchannelError(
      'ERR_VMCHANNEL_USAGE',
      `-device ${driver} without ${needed}=on tells no device outside of QEMU what the guest maps`,
      { hint: `add it: -device ${driver},${needed}=on, or leave the IOMMU out` },
    )
  }
  return undefined
}
