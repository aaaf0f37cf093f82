// The clipboard of a guest with spice-vdagent, in this program: prints what is copied there, and answers with a text that
// can be pasted there. node examples/clipboard-sync.mjs [SOCKET], where SOCKET is what com.redhat.spice.0 leads to; without
// it the port of the one VM that runs. With desktopClipboard() for MemoryClipboard it is `vmchannel clipboard`.
import { connectClipboard, MemoryClipboard } from 'vmchannel'

const clipboard = new MemoryClipboard()
clipboard.on('change', async (selection, types) => {
  if (!types.includes('text/plain;charset=utf-8')) return
  try {
    const text = await clipboard.readText(selection)
    console.log(`copied in the guest: ${text}`)
    clipboard.write(`the host has read: ${text}`)
  } catch (error) {
    console.error(error.message) // too large, or copied over meanwhile
  }
})

const sync = await connectClipboard({ backend: clipboard, socket: process.argv[2] })
await sync.ready({ timeout: 60_000 })
console.log('the agent is there')
process.once('SIGINT', () => sync.close())
await sync.closed
