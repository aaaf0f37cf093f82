/** Real processes: a Node script that becomes another program. Needs the build (`npm test` makes it). */
import { spawn, spawnSync, type StdioOptions } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const built = resolve(import.meta.dirname, '../../dist/src/ffi/exec.js')
let dir = ''
beforeAll(() => {
  if (!existsSync(built)) throw new Error(`${built} is missing: npm run build`)
  dir = mkdtempSync(join(tmpdir(), 'vmchannel-exec-'))
})
afterAll(() => {
  rmSync(dir, { recursive: true, force: true })
})

let scripts = 0
function script(body: string): string {
  const file = join(dir, `s${scripts++}.mjs`)
  writeFileSync(
    file,
    `import { execve, inheritedFds, setInheritable, stdioFlags } from ${JSON.stringify(built)}\n${body}\n`,
  )
  return file
}

interface Result {
  pid: number
  status: number | null
  signal: string | null
  stdout: string
  stderr: string
}

/** Runs the script; `during` may write to it or signal it. */
async function run(
  body: string,
  options: { stdio?: StdioOptions; input?: string; during?: (pid: number, stdout: () => string) => void } = {},
): Promise<Result> {
  const { input, during, ...rest } = options
  const child = spawn(process.execPath, [script(body)], { stdio: 'pipe', ...rest })
  let stdout = ''
  let stderr = ''
  child.stdout?.on('data', (chunk: Buffer) => {
    stdout += chunk.toString('latin1')
    during?.(child.pid ?? 0, () => stdout)
  })
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString('latin1')))
  if (input !== undefined) child.stdin?.end(input)
  const [status, signal] = (await once(child, 'close')) as [number | null, string | null]
  return { pid: child.pid ?? 0, status, signal, stdout, stderr }
}

const SH = (command: string): string =>
  `execve('/bin/sh', ['a name', '-c', ${JSON.stringify(command)}, 'zero', 'ü, one', ''])`

describe('inherited descriptors', () => {
  it('are those of the parent: files, sockets, ends of pipes, but nothing of Node', async () => {
    const file = openSync('/etc/passwd', 'r')
    const body = `import { spawnSync } from 'node:child_process'
      const fds = inheritedFds()
      setInheritable(fds[0], true)
      const child = spawnSync('/bin/sh', ['-c', '[ -e /proc/$$/fd/3 ] && echo three; [ -e /proc/$$/fd/4 ] && echo four'])
      console.log(fds.filter((fd) => fd < 8).join(), child.stdout.toString())`
    // 3 is a file, 4 an end of a socket pair, 5 a named pipe; 6 and 7 are free for Node
    const shell = 'mkfifo "$0.f"; exec 5<>"$0.f"; exec "$@"'
    const child = spawn('/bin/sh', ['-c', shell, join(dir, 'pipe'), process.execPath, script(body)], {
      stdio: ['pipe', 'pipe', 'inherit', file, 'pipe'],
    })
    let stdout = ''
    child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
    await once(child, 'close')
    closeSync(file)
    expect(stdout).toBe('3,4,5 three\n\n')
  })
})

describe('execve', () => {
  it('keeps the process id, passes the words on, and the exit status is that of the program', async () => {
    const result = await run(SH('echo $$; echo "$1|$2|$#"; tr "\\0" "\\n" < /proc/$$/cmdline | head -1; exit 37'))
    expect(result.stderr).toBe('')
    expect(Buffer.from(result.stdout, 'latin1').toString()).toBe(`${result.pid}\nü, one||2\na name\n`)
    expect(result.status).toBe(37)
  })

  it('hands over default signals and an empty mask, which Node does not have', async () => {
    const result = await run(`
      import { readFileSync } from 'node:fs'
      process.on('SIGTERM', () => {})
      process.on('SIGCHLD', () => {})
      console.log(/SigIgn:.*/.exec(readFileSync('/proc/self/status', 'utf8'))[0])
      ${SH('grep -E "Sig(Blk|Ign)" /proc/self/status')}`)
    const [before, ...after] = result.stdout.trim().split('\n')
    expect(before).toMatch(/SigIgn:\s+[01]*1000$/) // SIGPIPE: the test would not see anything otherwise
    expect(after).toEqual(['SigBlk', 'SigIgn'].map((name) => `${name}:\t0000000000000000`))
  })

  it('is killed by SIGTERM although the script had a handler', async () => {
    const result = await run(`process.on('SIGTERM', () => console.log('caught'))\n${SH('echo ready; exec sleep 60')}`, {
      during: (pid, stdout) => {
        if (stdout() === 'ready\n') process.kill(pid, 'SIGTERM')
      },
    })
    expect(result).toMatchObject({ signal: 'SIGTERM', stdout: 'ready\n' })
  })

  it('leaves standard input to the program, blocking again', async () => {
    const touch = `process.stdin.on('error', () => {}).pause(); process.stdout.write(''); process.stderr.write('')`
    const flags = 'for fd in 0 1 2; do grep flags /proc/$$/fdinfo/$fd; done; cat'
    const body = `${touch}\nconst before = stdioFlags()[0]\nprocess.stdout.write((before & 0o4000 ? 'nonblocking' : 'blocking') + '\\n')\n`
    const result = await run(body + SH(flags), { input: 'all of the input' })
    const lines = result.stdout.split('\n')
    expect(lines[0]).toBe('nonblocking')
    for (const line of lines.slice(1, 4)) expect(Number.parseInt(line.replace('flags:', ''), 8) & 0o4000).toBe(0)
    expect(lines[4]).toBe('all of the input')
  })

  it('puts back flags that were taken before', async () => {
    const result = await run(
      `const flags = stdioFlags()\nflags[0] |= 0o4000\n` +
        `execve('/bin/sh', ['sh', '-c', 'grep flags /proc/$$/fdinfo/0'], { stdioFlags: flags })`,
    )
    expect(Number.parseInt(result.stdout.replace('flags:', ''), 8) & 0o4000).toBe(0o4000)
  })

  it('lets inherited descriptors through, except those that were given away', async () => {
    writeFileSync(join(dir, 'inherited'), 'from the parent')
    const open = [openSync(join(dir, 'inherited'), 'r'), openSync(join(dir, 'inherited'), 'r')]
    const command = 'cat <&3; [ -e /proc/$$/fd/4 ] && echo leaked'
    const result = await run(
      `execve('/bin/sh', ['sh', '-c', '${command}'], { keepFds: [3, 4, 998], closeFds: [4, 999] })`,
      { stdio: ['pipe', 'pipe', 'pipe', ...open] },
    )
    for (const fd of open) closeSync(fd)
    expect(result.stdout).toBe('from the parent')
  })

  it('leaves nothing of Node open', async () => {
    const outer = spawnSync('/bin/sh', ['-c', 'ls /proc/$$/fd'], { encoding: 'utf8' })
    const result = await run(SH('ls /proc/$$/fd'))
    expect(result.stdout).toBe(outer.stdout)
  })

  it('passes the environment on byte for byte, or a new one', async () => {
    const shell = `printf '#!/bin/sh\\nBYTES=$(printf "\\\\377\\\\001") exec "$@"\\n' > "${dir}/env.sh"`
    spawnSync('/bin/sh', ['-c', shell])
    const body = `process.env.ADDED = 'by node'\n${SH('printf "%s %s" "$BYTES" "$ADDED"')}`
    const own = spawnSync('/bin/sh', [join(dir, 'env.sh'), process.execPath, script(body)], { encoding: 'latin1' })
    expect(own.stdout).toBe('\xff\x01 by node')
    const other = await run(`execve('/usr/bin/env', ['env'], { env: { ONLY: 'ü=1', TWO: '' } })`)
    expect(Buffer.from(other.stdout, 'latin1').toString()).toBe('ONLY=ü=1\nTWO=\n')
  })

  it('ends worker threads, timers and open handles', async () => {
    const result = await run(`
      import { Worker } from 'node:worker_threads'
      import { createServer } from 'node:net'
      import { readFile } from 'node:fs'
      const workers = [1, 2].map(() => new Worker('postMessage(1); for (;;) {}'.replace('postMessage', 'require("worker_threads").parentPort.postMessage'), { eval: true }))
      await Promise.all(workers.map((worker) => new Promise((done) => worker.on('message', done))))
      createServer().listen(${JSON.stringify(join(dir, 'x.sock'))})
      setInterval(() => {}, 10)
      for (let i = 0; i < 8; i++) readFile('/dev/urandom', { length: 1 }, () => {})
      setTimeout(() => { ${SH('ls /proc/$$/task | wc -l; ls -l /proc/$$/fd; sleep 0.2')} }, 50)`)
    expect(result.stderr).toBe('')
    expect(result.stdout).toMatch(/^1\n/)
    expect(result.stdout).not.toMatch(/anon_inode/)
  })

  it('says what is wrong and goes on as before when there is no such program', async () => {
    const result = await run(`
      import { readFileSync } from 'node:fs'
      const status = () => readFileSync('/proc/self/status', 'utf8').match(/Sig(Blk|Ign|Cgt).*/g).join()
      process.on('SIGUSR2', () => { console.log('caught'); process.exit(5) })
      process.stdin.resume()
      process.stdout.write('')
      process.stderr.write('')
      const before = [status(), ...stdioFlags()].join()
      try { execve('/nonexistent/qemu', ['qemu'], { closeFds: [1] }) }
      catch (error) { console.log(error.code, error.errno, error.message) }
      console.log([status(), ...stdioFlags()].join() === before)
      process.kill(process.pid, 'SIGUSR2')`)
    expect(result.stdout).toBe('ERR_VMCHANNEL_QEMU ENOENT /nonexistent/qemu: execve failed with ENOENT\ntrue\ncaught\n')
    expect(result.status).toBe(5)
  })

  it('refuses words with a NUL byte in them', async () => {
    const result = await run(`try { execve('/bin/true', ['a\\0b']) } catch (error) { console.log(error.code) }`)
    expect(result.stdout).toBe('ERR_VMCHANNEL_USAGE\n')
  })

  it('takes words as bytes, and a great many of them', async () => {
    const result = await run(
      `execve('/bin/sh', ['sh', '-c', 'printf "%s" "$0" | od -An -tx1; echo $#', Uint8Array.of(0xff, 0x41), ...Array(20000).fill('x')])`,
    )
    expect(result.stdout).toBe(' ff 41\n20000\n')
  })
})
