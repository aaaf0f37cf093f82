/** Why memory files that are cut short are not tried elsewhere (src/ffi/sigbus.ts). */
export const UNGUARDED: string = `not guarded on ${process.arch}: only x86-64 survives a memory file that is cut short`
