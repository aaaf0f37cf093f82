/** Names, dependencies and insertion order of kernel modules. Pure; kernel.ts feeds it. */

/** `kernel/drivers/char/virtio-rng.ko.xz` → `virtio_rng`: the kernel takes - and _ for the same. */
export function moduleName(path: string): string {
  return path
    .slice(path.lastIndexOf('/') + 1)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_')
}

/** The `depends=` entry of the module's .modinfo section. */
export function moduleDepends(module: Uint8Array): string[] {
  const bytes = Buffer.from(module.buffer, module.byteOffset, module.byteLength)
  const key = '\0depends='
  const at = bytes.indexOf(key, 0, 'latin1')
  if (at < 0) return []
  const start = at + key.length
  return bytes
    .toString('latin1', start, bytes.indexOf(0, start))
    .split(',')
    .filter((name) => name !== '')
    .map(moduleName)
}

/** Depth first: each module after everything it depends on, in the order asked for, once, without the built-in ones. */
export async function insertionOrder(
  names: readonly string[],
  builtin: ReadonlySet<string>,
  depends: (name: string) => Promise<readonly string[]>,
): Promise<string[]> {
  const order: string[] = []
  const seen = new Set<string>()
  const visit = async (name: string): Promise<void> => {
    if (seen.has(name) || builtin.has(name)) return
    seen.add(name)
    for (const other of await depends(name)) await visit(other)
    order.push(name)
  }
  for (const name of names) await visit(moduleName(name))
  return order
}
