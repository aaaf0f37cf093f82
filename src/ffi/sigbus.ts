/**
 * Memory of somebody else's file may go while we use it: who can write the file can cut it short, and the next load from
 * the mapping raises SIGBUS, whose default is the end of the process and of every other VM in it. JavaScript cannot run in
 * a signal handler, so the handler here is machine code, forty instructions of our own: where the address lies in a
 * mapping that is guarded, it puts zero pages over all of that mapping, notes the loss, and the load is done again. Any
 * other SIGBUS does what it always did.
 *
 * Only on x86-64; elsewhere nothing is guarded. System calls need no guard: they fail with EFAULT.
 */

import { check, declare, systemError, viewNative } from './libc.ts'
import { MAP_ANONYMOUS, MAP_PRIVATE, mmapFunction, PROT_READ_WRITE } from './memory-calls.ts'

const mprotectFunction = declare('int mprotect(int64_t address, size_t len, int prot)')
const sigactionFunction = declare('int sigaction(int signal, const uint8_t *action, uint8_t *old)')

const SIGBUS = 7
const SA_SIGINFO = 4
const SA_RESTART = 0x1000_0000
const PROT_READ_EXEC = 5
/** struct sigaction of x86-64: the handler's address, 128 bytes of mask, flags, restorer (which libc fills in). */
const SIGACTION_SIZE = 152
const SIGACTION_FLAGS = 136

/**
 * In one piece of memory: a page of code, then the table. An entry is three words: address, length, whether it was lost.
 * The first entry counts losses instead, the last is never used: four words of zeros, and the end of every search.
 */
const CODE_SIZE = 4096
const TABLE_SIZE = 64 << 10
const WORDS = 3
const SLOTS = Math.floor(TABLE_SIZE / 8 / WORDS) - 2
/** A place that was used and is free: not the end, and no address is in it. */
const FREE = 1n

/** handler(signal, siginfo in rsi, context); TABLE and ZEROS are filled in. */
const CODE = (table: bigint, zeros: bigint): number[] => [
  ...[0x49, 0xb8, ...word(table)], //            mov  r8, TABLE
  ...[0x48, 0x8b, 0x7e, 0x10], //                mov  rdi, [rsi+16]       the address that failed (si_addr)
  ...[0x4d, 0x89, 0xc3], //                      mov  r11, r8
  ...[0x49, 0x83, 0xc0, 0x18], //                add  r8, 24
  ...[0x49, 0x8b, 0x10], //                search: mov  rdx, [r8]
  ...[0x48, 0x85, 0xd2], //                      test rdx, rdx
  ...[0x74, 0x49], //                            jz   other
  ...[0x49, 0x8b, 0x70, 0x08], //                mov  rsi, [r8+8]
  ...[0x48, 0x89, 0xf8], //                      mov  rax, rdi
  ...[0x48, 0x29, 0xd0], //                      sub  rax, rdx
  ...[0x48, 0x39, 0xf0], //                      cmp  rax, rsi
  ...[0x72, 0x06], //                            jb   found
  ...[0x49, 0x83, 0xc0, 0x18], //                add  r8, 24
  ...[0xeb, 0xe3], //                            jmp  search
  ...[0x49, 0xc7, 0x40, 0x10, 1, 0, 0, 0], // found: mov  qword [r8+16], 1
  ...[0xf0, 0x49, 0xff, 0x03], //                lock inc qword [r11]
  ...[0x48, 0x89, 0xd7], //                      mov  rdi, rdx            mmap(start, len,
  ...[0xba, 3, 0, 0, 0], //                      mov  edx, 3                PROT_READ | PROT_WRITE,
  ...[0x41, 0xba, 0x32, 0x40, 0, 0], //          mov  r10d, 0x4032          PRIVATE | FIXED | ANONYMOUS | NORESERVE,
  ...[0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff], // mov r8, -1              no file,
  ...[0x45, 0x31, 0xc9], //                      xor  r9d, r9d              0)
  ...[0xb8, 9, 0, 0, 0], //                      mov  eax, 9
  ...[0x0f, 0x05], //                            syscall
  ...[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff], //    cmp  rax, -4096
  ...[0x77, 0x01], //                            ja   other               it failed
  0xc3, //                                       ret
  ...[0xbf, 7, 0, 0, 0], //               other: mov  edi, 7               rt_sigaction(SIGBUS,
  ...[0x48, 0xbe, ...word(zeros)], //            mov  rsi, ZEROS            the default,
  ...[0x31, 0xd2], //                            xor  edx, edx              no old one,
  ...[0x41, 0xba, 8, 0, 0, 0], //                mov  r10d, 8               8)
  ...[0xb8, 13, 0, 0, 0], //                     mov  eax, 13
  ...[0x0f, 0x05], //                            syscall
  ...[0xb8, 39, 0, 0, 0], //                     mov  eax, 39              getpid()
  ...[0x0f, 0x05], //                            syscall
  ...[0x89, 0xc7], //                            mov  edi, eax             kill(it,
  ...[0xbe, 7, 0, 0, 0], //                      mov  esi, 7               SIGBUS)
  ...[0xb8, 62, 0, 0, 0], //                     mov  eax, 62
  ...[0x0f, 0x05], //                            syscall
  0xc3, //                                       ret                      it comes as soon as this one is over
]

interface Table {
  readonly entries: BigUint64Array
  /** The low half of the number of losses. */
  readonly losses: Uint32Array
}

let table: Table | undefined

/** A mapping under guard. */
export class Guard {
  readonly #slot: number

  /** Takes [address, address + size) under guard; where nothing can be guarded it says so by never being lost. */
  constructor(address: number, size: number) {
    table ??= process.arch === 'x64' ? install() : undefined
    this.#slot = table ? freeSlot(table.entries) : 0
    if (!table || this.#slot === 0) return
    // The address last: a search that comes in between sees a free place.
    table.entries[this.#slot * WORDS + 2] = 0n
    table.entries[this.#slot * WORDS + 1] = BigInt(size)
    table.entries[this.#slot * WORDS] = BigInt(address)
  }

  /** The memory has gone; there are zero pages instead. */
  get lost(): boolean {
    return this.#slot > 0 && table!.entries[this.#slot * WORDS + 2] !== 0n
  }

  release(): void {
    if (this.#slot === 0) return
    table!.entries[this.#slot * WORDS] = FREE
    table!.entries[this.#slot * WORDS + 1] = 0n
  }
}

/** How many mappings have been lost in this process: a number to be compared with what it was before. */
export function losses(): number {
  return table ? Atomics.load(table.losses, 0) : 0
}

/** 0 where there is no place. */
function freeSlot(entries: BigUint64Array): number {
  for (let slot = 1; slot < SLOTS; slot++) if (entries[slot * WORDS]! <= FREE) return slot
  return 0
}

function install(): Table {
  const address = mmapFunction(0, CODE_SIZE + TABLE_SIZE, PROT_READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
  if (address === -1) throw systemError('mmap', 'the guard of guest memory', 'ERR_VMCHANNEL_MEMORY')
  const start = BigInt(address)
  const buffer = viewNative(start, CODE_SIZE + TABLE_SIZE)
  const zeros = BigInt(CODE_SIZE + TABLE_SIZE - 32)
  new Uint8Array(buffer).set(CODE(start + BigInt(CODE_SIZE), start + zeros))
  check(mprotectFunction(address, CODE_SIZE, PROT_READ_EXEC), 'mprotect', 'the guard of guest memory')
  const action = new Uint8Array(new ArrayBuffer(SIGACTION_SIZE))
  const view = new DataView(action.buffer)
  view.setBigUint64(0, start, true)
  view.setInt32(SIGACTION_FLAGS, SA_SIGINFO | SA_RESTART, true)
  check(sigactionFunction(SIGBUS, action, null), 'sigaction', 'the guard of guest memory')
  return { entries: new BigUint64Array(buffer, CODE_SIZE), losses: new Uint32Array(buffer, CODE_SIZE, 2) }
}

function word(value: bigint): number[] {
  return Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn))
}
