// A guest for the examples: the lab's (a stock kernel on an emulated machine, fetched at the first run), or your own:
//
//   QEMU='qemu-system-x86_64 -accel kvm -drive file=disk.qcow2,if=virtio -nographic' node examples/hello.mjs
//
// Your own gets the arguments of the device added; the command that the example wants in it, you type there yourself.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'

/**
 * Starts QEMU with the device. `run(command)` runs a shell command in the guest, `close()` ends the guest. `guest: 'agent'`
 * has qemu-guest-agent in the lab's guest; `args` are more arguments for QEMU.
 */
export async function startGuest(device, { append = '', guest, args: more = [] } = {}) {
  if (process.env.QEMU) {
    const [file, ...words] = process.env.QEMU.split(' ')
    const own = [...device.memoryArgs(process.env.MEMORY ?? '1G'), ...device.qemuArgs, ...more]
    const qemu = spawn(file, [...words, ...own], { stdio: 'inherit' })
    return {
      run: (command) => console.error(`in the guest, as root:  ${command}`),
      close: async () => qemu.kill() && once(qemu, 'exit'),
    }
  }
  if (!existsSync(new URL('../dist/lab/machine.js', import.meta.url)))
    throw new Error('the lab with its guest is in the repository only; bring your own: QEMU="qemu-system-x86_64 …"')
  const [{ Machine }, { ensureQemu }, { ensureKernel }] = await Promise.all([
    import('../dist/lab/machine.js'),
    import('../dist/lab/fetch/qemu.js'),
    import('../dist/lab/fetch/kernel.js'),
  ])
  const { agentGuest } = await import('../dist/lab/agent-guest.js')
  const args = [...device.memoryArgs('256M'), ...device.qemuArgs, ...more]
  const machine = await Machine.boot({
    qemu: (await ensureQemu()).path,
    kernel: await ensureKernel('6.1'),
    args,
    append,
    ...(guest === 'agent' && { guest: await agentGuest() }),
  })
  return { run: (command) => void machine.spawn(command), close: () => machine.close() }
}
