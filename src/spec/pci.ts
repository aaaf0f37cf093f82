/** virtio over PCI, virtio 1.3 §4.1, and the little of PCI itself that a virtio function needs. */

// Identity, §4.1.2
export const PCI_VENDOR_ID_VIRTIO = 0x1af4
/** Device id of a non-transitional device: 0x1040 + virtio id. */
export const PCI_DEVICE_ID_VIRTIO_BASE = 0x1040
/** §4.1.2.1: a transitional console; it has the capabilities of a modern one too. */
export const PCI_DEVICE_ID_VIRTIO_TRANSITIONAL_CONSOLE = 0x1003
export const VIRTIO_ID_CONSOLE = 3
/** §4.1.2.1: subsystem ids of non-transitional devices start here. */
export const PCI_SUBSYSTEM_ID_MIN = 0x40
export const PCI_REVISION_MODERN = 1
/** Communication controller, other. */
export const PCI_CLASS_COMMUNICATION_OTHER = 0x078000

// PCI configuration header, type 0
export const PCI_VENDOR_ID = 0x00
export const PCI_DEVICE_ID = 0x02
export const PCI_COMMAND = 0x04
export const PCI_COMMAND_IO = 1
export const PCI_COMMAND_MEMORY = 2
export const PCI_COMMAND_MASTER = 4
export const PCI_COMMAND_PARITY = 0x40
export const PCI_COMMAND_SERR = 0x100
export const PCI_COMMAND_INTX_DISABLE = 0x400
export const PCI_STATUS = 0x06
export const PCI_STATUS_INTERRUPT = 0x08
export const PCI_STATUS_CAP_LIST = 0x10
export const PCI_CLASS_REVISION = 0x08
export const PCI_CACHE_LINE_SIZE = 0x0c
export const PCI_LATENCY_TIMER = 0x0d
export const PCI_BASE_ADDRESS_0 = 0x10
export const PCI_SUBSYSTEM_VENDOR_ID = 0x2c
export const PCI_SUBSYSTEM_ID = 0x2e
export const PCI_CAPABILITY_LIST = 0x34
export const PCI_INTERRUPT_LINE = 0x3c
export const PCI_INTERRUPT_PIN = 0x3d
export const PCI_CONFIG_SIZE = 256

export const PCI_BAR_MEM_64 = 0x4
export const PCI_BAR_PREFETCH = 0x8

export const PCI_CAP_ID_VNDR = 0x09
export const PCI_CAP_ID_MSIX = 0x11
export const PCI_CAP_MSIX_SIZEOF = 12
export const PCI_MSIX_FLAGS_QSIZE = 0x7ff
export const PCI_MSIX_FLAGS_ENABLE = 0x8000
export const PCI_MSIX_FLAGS_MASKALL = 0x4000
export const PCI_MSIX_ENTRY_SIZE = 16

// struct virtio_pci_cap, §4.1.4
export const VIRTIO_PCI_CAP_COMMON_CFG = 1
export const VIRTIO_PCI_CAP_NOTIFY_CFG = 2
export const VIRTIO_PCI_CAP_ISR_CFG = 3
export const VIRTIO_PCI_CAP_DEVICE_CFG = 4
export const VIRTIO_PCI_CAP_PCI_CFG = 5
export const VIRTIO_PCI_CAP_SIZEOF = 16

// struct virtio_pci_common_cfg, §4.1.4.3
export const VIRTIO_PCI_COMMON_DFSELECT = 0x00
export const VIRTIO_PCI_COMMON_DF = 0x04
export const VIRTIO_PCI_COMMON_GFSELECT = 0x08
export const VIRTIO_PCI_COMMON_GF = 0x0c
export const VIRTIO_PCI_COMMON_MSIX = 0x10
export const VIRTIO_PCI_COMMON_NUMQ = 0x12
export const VIRTIO_PCI_COMMON_STATUS = 0x14
export const VIRTIO_PCI_COMMON_CFGGENERATION = 0x15
export const VIRTIO_PCI_COMMON_Q_SELECT = 0x16
export const VIRTIO_PCI_COMMON_Q_SIZE = 0x18
export const VIRTIO_PCI_COMMON_Q_MSIX = 0x1a
export const VIRTIO_PCI_COMMON_Q_ENABLE = 0x1c
export const VIRTIO_PCI_COMMON_Q_NOFF = 0x1e
export const VIRTIO_PCI_COMMON_Q_DESCLO = 0x20
export const VIRTIO_PCI_COMMON_Q_AVAILLO = 0x28
export const VIRTIO_PCI_COMMON_Q_USEDLO = 0x30
export const VIRTIO_PCI_COMMON_Q_NDATA = 0x38
export const VIRTIO_PCI_COMMON_Q_RESET = 0x3a
export const VIRTIO_PCI_COMMON_CFG_SIZEOF = 0x3c
/** As long as it was in version 1.0: without queue_notify_data and queue_reset. */
export const VIRTIO_PCI_COMMON_CFG_SIZEOF_MIN = 0x38

/** §4.1.4.3: no vector mapped. */
export const VIRTIO_MSI_NO_VECTOR = 0xffff

// ISR status, §4.1.4.5
export const VIRTIO_PCI_ISR_QUEUE = 1
export const VIRTIO_PCI_ISR_CONFIG = 2
