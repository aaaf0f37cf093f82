/** `vmchannel guest`: the driver half as a command; src/guest does the work. */

import { runGuest, stderrLog, type GuestOptions } from '../guest/main.ts'
import type { Run } from './table.ts'

export const guestCommand: Run = async ({ options }) => {
  const { device, driver, share, force, quiet, usernet, address } = options
  const chosen: GuestOptions = { share: share === true, force: force === true, log: stderrLog(quiet === true) }
  if (usernet === true) chosen.usernet = true
  if (typeof address === 'string') chosen.address = address
  if (typeof device === 'string') chosen.device = device
  if (driver === 'uio' || driver === 'vfio') chosen.driver = driver
  await runGuest(chosen)
}
