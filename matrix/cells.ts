/**
 * The cells of the matrix: which device under which driver, kernel and QEMU; and those that cannot be, with the reason.
 */
import type { KernelSeries } from '../lab/fetch/kernel.ts'

export type CellDevice = 'ours' | 'qemu'
export type CellDriver = 'uio' | 'vfio' | 'qtest' | 'linux'
export type Shape = 'modern' | 'transitional'
export type QemuSeries = '7.2' | '11.1'

export interface Cell {
  device: CellDevice
  shape: Shape
  driver: CellDriver
  /** None under qtest: there is no guest. */
  kernel: KernelSeries | undefined
  qemu: QemuSeries
  /** The device is behind a virtual IOMMU, as VFIO needs it. */
  iommu: boolean
  /** The machine boots by OVMF, whose own driver has the device first; else by SeaBIOS, which has none. */
  ovmf: boolean
  /** Why it cannot be; it is in the table all the same. */
  never?: string
}

const KERNELS: readonly KernelSeries[] = ['6.1', '7.x']
const DRIVERS: readonly CellDriver[] = ['linux', 'uio', 'vfio', 'qtest']

/** All of them, in the order of the table. */
export function allCells(): Cell[] {
  const cells: Cell[] = []
  for (const qemu of ['11.1', '7.2'] as const)
    for (const [device, shape] of [
      ['ours', 'modern'],
      ['qemu', 'modern'],
      ['qemu', 'transitional'],
    ] as const)
      for (const driver of DRIVERS) {
        // A cell that cannot be is one line, whatever the kernel.
        const never = impossible(device, shape, driver, qemu)
        for (const kernel of driver === 'qtest' || never !== undefined ? [undefined] : KERNELS)
          cells.push({
            ...{ device, shape, driver, kernel, qemu, iommu: driver === 'vfio', ovmf: false },
            ...(never === undefined ? {} : { never }),
          })
      }
  for (const device of ['ours', 'qemu'] as const)
    for (const ovmf of [false, true])
      cells.push({ device, shape: 'modern', driver: 'linux', kernel: '6.1', qemu: '11.1', iommu: !ovmf, ovmf })
  return cells
}

/** One cell of each kind, for a test: what the guests of the other tests leave out. */
export function shortCells(): Cell[] {
  const wanted = ['ours modern vfio 6.1 11.1 iommu', 'qemu transitional linux 6.1 7.2', 'qemu modern qtest - 11.1']
  return allCells().filter((cell) => wanted.includes(cellName(cell)))
}

/** "ours modern vfio 6.1 11.1 iommu". */
export function cellName({ device, shape, driver, kernel, qemu, iommu, ovmf }: Cell): string {
  return [device, shape, driver, kernel ?? '-', qemu, ...(iommu ? ['iommu'] : []), ...(ovmf ? ['ovmf'] : [])].join(' ')
}

function impossible(device: CellDevice, shape: Shape, driver: CellDriver, qemu: QemuSeries): string | undefined {
  if (qemu === '7.2' && device === 'ours') return 'vfio-user-pci came with QEMU 10.1'
  if (qemu === '7.2' && driver === 'qtest') return "Debian's QEMU 7.2 is built without qtest"
  if (driver === 'vfio' && shape === 'transitional')
    return 'a transitional device cannot be behind an IOMMU: its old drivers do not know of it (QEMU refuses it)'
  return undefined
}
