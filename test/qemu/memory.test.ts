import { describe, expect, it } from 'vitest'
import type { FileKind } from '../../src/qemu/memory.ts'
import { planQemu } from '../../src/qemu/plan.ts'

const words = (text: string): string[] => text.trim().split(/\s+/)
const M = 2 ** 20

/** What QEMU gets for a run with a port, without the port's device. */
function memoryArgs(text: string, fileKind: FileKind = 'directory'): string {
  const argv = words(`${text} -virtioserial null`)
  const args = planQemu(argv, { fileKind: () => fileKind }).qemuArgs(['/s'])
  return args.slice(0, -2).join(' ')
}

describe('memory is added in the size of -m', () => {
  it.each([
    ['', 128 * M],
    ['-m 512', 512 * M],
    ['-m 512M', 512 * M],
    ['-m 1G', 1024 * M],
    ['-m 1.5g', 1536 * M],
    ['-m size=1G', 1024 * M],
    ['-m size=524288k', 512 * M],
    ['-m 64B', 8192],
    ['-m 67108865B', 67117056],
    ['-m 0', 128 * M],
    ['-m 512 -m 1G', 1024 * M],
    ['-M q35,memory.size=256M', 256 * M],
    ['-m 64 -M q35,memory.size=256M', 64 * M],
  ])('%s', (text, size) => {
    const added = `-object memory-backend-memfd,id=vmchannel-ram,size=${size},share=on -machine memory-backend=vmchannel-ram`
    expect(memoryArgs(text)).toBe(`${text} ${added}`.trim())
  })

  it('and says that memory of later must be shared where there are slots', () => {
    const plan = planQemu(words('-m size=1G,slots=2,maxmem=4G -virtioserial null'))
    expect(plan.qemuArgs(['/s'])).toContain(`memory-backend-memfd,id=vmchannel-ram,size=${1024 * M},share=on`)
    expect(plan.warnings).toEqual([expect.stringMatching(/share=on/)])
  })

  it('under an id that is free', () => {
    expect(memoryArgs('-object rng-random,id=vmchannel-ram')).toContain('memory-backend=vmchannel-ram1')
  })

  it('unless -m makes no sense', () => {
    expect(() => memoryArgs('-m lots')).toThrow(
      expect.objectContaining({ code: 'ERR_VMCHANNEL_MEMORY', message: '-m lots is not a size' }),
    )
  })
})

it('-mem-path becomes a shared backend, since QEMU takes only one of the two', () => {
  expect(memoryArgs('-mem-path /dev/huge,pages -mem-prealloc -m 64')).toBe(
    `-mem-prealloc -m 64 -object memory-backend-file,id=vmchannel-ram,size=${64 * M},share=on,mem-path=/dev/huge,,pages ` +
      '-machine memory-backend=vmchannel-ram',
  )
})

describe('a backend of the user', () => {
  it.each([
    [
      '-object memory-backend-ram,id=m,size=1G,prealloc=on,policy=bind,host-nodes=0 -M q35,memory-backend=m',
      '-object memory-backend-memfd,id=m,size=1G,prealloc=on,policy=bind,host-nodes=0,share=on -M q35,memory-backend=m',
    ],
    [
      '-object memory-backend-file,id=m,size=1G,mem-path=/dev/shm -M q35 -machine memory-backend=m',
      '-object memory-backend-file,id=m,size=1G,mem-path=/dev/shm,share=on -M q35 -machine memory-backend=m',
    ],
    [
      '-m 2G -numa node,memdev=a -numa node,memdev=b -object memory-backend-ram,id=a,size=1G -object {"qom-type":"memory-backend-ram","id":"b","size":1073741824}',
      '-m 2G -numa node,memdev=a -numa node,memdev=b -object memory-backend-memfd,id=a,size=1G,share=on -object {"qom-type":"memory-backend-memfd","id":"b","size":1073741824,"share":true}',
    ],
  ])('is shared: %s', (text, expected) => {
    expect(memoryArgs(text)).toBe(expected)
  })

  it.each([
    '-object memory-backend-memfd,id=m,size=1G -M q35,memory-backend=m',
    '-object memory-backend-shm,id=m,size=1G -M q35,memory-backend=m',
    '-object memory-backend-ram,id=m,size=1G,share=on -M q35,memory-backend=m',
    '-object memory-backend-file,id=m,size=1G,mem-path=/f,share=yes -M q35,memory-backend=m',
    '-object {"qom-type":"memory-backend-memfd","id":"m","size":1,"share":true} -M q35,memory-backend=m',
    '-M q35,memory-backend=missing',
  ])('stays as it is: %s', (text) => {
    expect(memoryArgs(text, 'file')).toBe(text)
  })

  it('is left alone where it is no RAM', () => {
    const text = '-object memory-backend-file,id=n,size=1G,mem-path=/f,share=off -device nvdimm,memdev=n'
    expect(memoryArgs(text)).toMatch(new RegExp(`^${text} -object memory-backend-memfd`))
  })

  it('is shared where it is plugged in from the start', () => {
    expect(memoryArgs('-object memory-backend-ram,id=d,size=1G -device pc-dimm,memdev=d')).toMatch(
      /^-object memory-backend-memfd,id=d,size=1G,share=on -device pc-dimm,memdev=d -object memory-backend-memfd,id=vmchannel-ram/,
    )
  })

  it.each([
    [
      '-object memory-backend-memfd,id=m,size=1G,share=off -M q35,memory-backend=m',
      /^-object memory-backend-memfd.*share=off/,
    ],
    ['-object memory-backend-ram,id=m,size=1G,share=n -M q35,memory-backend=m', /share=off keeps/],
    [
      '-object {"qom-type":"memory-backend-ram","id":"m","size":1,"share":false} -numa node,memdev=m',
      /of -numa node,memdev=m/,
    ],
    ['-object memory-backend-epc,id=m,size=1G -M q35,memory-backend=m', /not shared/],
    ['-M q35,confidential-guest-support=sev0', /encrypts/],
  ])('is refused: %s', (text, message) => {
    expect(() => memoryArgs(text)).toThrow(
      expect.objectContaining({ code: 'ERR_VMCHANNEL_MEMORY', message: expect.stringMatching(message) }),
    )
  })

  it('is refused where sharing would overwrite a file that QEMU would leave alone', () => {
    const text = '-object memory-backend-file,id=m,size=1G,mem-path=/template -M q35,memory-backend=m'
    expect(() => memoryArgs(text, 'file')).toThrow(/the file \/template exists/)
    expect(() => memoryArgs('-mem-path /template', 'file')).toThrow(/the file \/template exists/)
    expect(memoryArgs(text, 'missing')).toContain('share=on')
  })
})
