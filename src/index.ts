/** The door of the host: everything that `import … from 'vmchannel'` can name. A guest has its own, guest/index.ts. */

export { createDevice } from './library/create-device.ts'
export { connect, openDevice, type ConnectOptions, type OpenOptions } from './library/connect.ts'
export { Device, type DeviceEvents } from './library/device.ts'
export { PortHandle, type PortEvents } from './library/port-handle.ts'
export { PortStream } from './library/port-stream.ts'
export type { ChardevPortOptions, DeviceOptions, PortOptions, StreamPortOptions } from './library/options.ts'
export { inspectDisk, type InspectOptions } from './inspect/inspect-disk.ts'
export type { Application, DiskReport, FileSystem, OperatingSystem } from './inspect/report.ts'
export type { DiskFormat } from './inspect/disk-formats.ts'
export { listDevices, type FoundDevice } from './client/find.ts'
export { connectAgent, type AgentOptions } from './agent/connect.ts'
export { GuestAgent, type FileOptions, type PutOptions, type PutSource } from './agent/guest-agent.ts'
export type { ExecOptions, ExecResult } from './agent/exec.ts'
export type {
  AgentCommand,
  AgentInfo,
  FreezeStatus,
  GuestFileSystem,
  GuestInterface,
  GuestOsInfo,
  GuestUser,
} from './agent/protocol.ts'
export { lockOnDisconnect, type ScreenLockEvent, type ScreenLockOptions } from './screenlock/watch.ts'
export type { LockedSession } from './screenlock/sessions.ts'
export { connectClipboard, type ClipboardOptions } from './clipboard/connect.ts'
export type { ClipboardCounters, ClipboardEvent, ClipboardSync, Direction } from './clipboard/sync.ts'
export { desktopClipboard, type BackendName } from './clipboard/select-backend.ts'
export { MemoryClipboard } from './clipboard/memory.ts'
export type { ClipboardBackend, ClipboardOffer } from './clipboard/backend.ts'
export type { MimeType, Selection } from './clipboard/wire.ts'
export type { WaitOptions } from './client/abort.ts'
export { VmchannelError, type ErrorCode } from './errors.ts'
export type { Log } from './log.ts'
export type { PortSpec } from './port-spec.ts'
export type { ChardevSpec } from './chardev/spec.ts'
export type { OnClose, PortPolicy } from './device/port-settings.ts'
export type { PortCounters } from './device/counters.ts'
export type { PortInfo, PortRef, PortStats, VmInfo, VmOptions } from './daemon/protocol.ts'
export { VERSION } from './version.ts'
