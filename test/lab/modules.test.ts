import { basename } from 'node:path'
import { expect, test } from 'vitest'
import { ensureKernel, kernelModules } from '../../lab/fetch/kernel.ts'
import { insertionOrder, moduleDepends, moduleName } from '../../lab/fetch/modules.ts'

test('a module comes after all it depends on, once, and built-in ones do not come', async () => {
  const graph: Record<string, string[]> = { console: ['virtio', 'ring'], pci: ['virtio', 'legacy', 'ring'] }
  const depends = (name: string) => Promise.resolve(graph[name] ?? [])
  const order = await insertionOrder(['console', 'pci', 'console'], new Set(['ring']), depends)
  expect(order).toEqual(['virtio', 'console', 'legacy', 'pci'])
})

test('a loop of dependencies ends', async () => {
  const graph = new Map([
    ['a', ['b']],
    ['b', ['a']],
  ])
  const depends = (name: string) => Promise.resolve(graph.get(name) ?? [])
  expect(await insertionOrder(['a'], new Set(), depends)).toEqual(['b', 'a'])
})

test('names and dependencies are read as the kernel writes them', () => {
  expect(moduleName('kernel/drivers/char/hw_random/virtio-rng.ko.xz')).toBe('virtio_rng')
  const text = 'license=GPL\0depends=virtio_ring,vfio-pci-core\0name=x\0'
  expect(moduleDepends(Buffer.from(`\x7fELF\0${text}`, 'latin1'))).toEqual(['virtio_ring', 'vfio_pci_core'])
  expect(moduleDepends(Buffer.from('\0depends=\0', 'latin1'))).toEqual([])
})

test('the stock kernels: 6.1 has virtio in modules, 6.12 built in; what is packed is unpacked', async () => {
  const old = await kernelModules(await ensureKernel('6.1'))
  expect(old.map((path) => basename(path))).toEqual([
    'virtio_ring.ko',
    'virtio.ko',
    'virtio_pci_modern_dev.ko',
    'virtio_pci_legacy_dev.ko',
    'virtio_pci.ko',
    'virtio_console.ko',
  ])
  const kernel = await ensureKernel('6.12')
  expect(await kernelModules(kernel)).toEqual([])
  const uio = await kernelModules(kernel, ['uio_pci_generic'])
  expect(uio.map((path) => basename(path))).toEqual(['uio.ko', 'uio_pci_generic.ko'])
  await expect(kernelModules(kernel, ['no_such_thing'])).rejects.toThrow(/6\.12.* has no module no_such_thing/)
})
