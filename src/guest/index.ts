/** The door of the guest's half: everything that `import … from 'vmchannel/guest'` can name. */

export { connect, GuestDevice, openDevice } from './device.ts'
export type { ConnectOptions, GuestDeviceEvents, OpenDeviceOptions } from './device.ts'
export { GuestPort, type GuestPortEvents, type OpenPortOptions } from './port.ts'
export { GuestPortStream } from './port-stream.ts'
export type { SessionOptions } from './session.ts'
export type { WaitOptions } from '../client/abort.ts'
export type { DriverPortCounters } from '../driver/port-settings.ts'
export { VmchannelError, type ErrorCode } from '../errors.ts'
export type { Log } from '../log.ts'
