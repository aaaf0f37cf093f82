/** Numbers of the X protocol: requests, events, masks. */

export const REQUEST = {
  createWindow: 1,
  changeWindowAttributes: 2,
  internAtom: 16,
  changeProperty: 18,
  getProperty: 20,
  setSelectionOwner: 22,
  convertSelection: 24,
  sendEvent: 25,
  queryExtension: 98,
} as const

export const EVENT = { propertyNotify: 28, selectionRequest: 30, selectionNotify: 31 } as const

/** CWEventMask, of a window's attributes; PropertyChangeMask, of events. */
export const EVENT_MASK = 0x800
export const PROPERTY_CHANGE = 0x400000
