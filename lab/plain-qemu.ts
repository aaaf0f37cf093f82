/**
 * The control of comparisons: takes a command line as vmchannel-qemu does and becomes QEMU with QEMU's own device, the
 * guest's memory from the same kind of back end. guestfs.ts starts it.
 */
import { execve } from '../src/ffi/exec.ts'
import { splitCommandLine } from '../src/qemu/command-line.ts'
import { findQemu } from '../src/qemu/find.ts'
import { planMemory } from '../src/qemu/memory.ts'
import { passThroughReason } from '../src/qemu/pass-through.ts'

const argv = process.argv.slice(2)
const qemu = findQemu(process.env)
const list = splitCommandLine(argv)
if (passThroughReason(list) === undefined) argv.push(...planMemory(list, new Set(), () => 'missing').added)
execve(qemu, [qemu, ...argv])
