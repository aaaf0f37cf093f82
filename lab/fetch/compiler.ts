/**
 * Static C programs for the guest: the system's compiler where it can link statically, else gcc of trixie in the
 * cache (about 60 MB to fetch). Results are kept by the hash of their sources.
 */
import { createHash } from 'node:crypto'
import { existsSync, statSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { VmchannelError } from '../../src/errors.ts'
import { tryCommand } from '../command.ts'
import { cacheRoot, findProgram, guestSource } from '../paths.ts'
import { ensurePackages, type FetchOptions } from './packages.ts'
import { longError } from '../long-error.ts'

export interface Compiler {
  path: string
  args: readonly string[]
}

const FLAGS = ['-static', '-O2', '-Wall', '-Wextra', '-std=gnu11']
let found: Promise<Compiler> | undefined

/** A compiler that has been seen to link statically. */
export function ensureCompiler(options: FetchOptions = {}): Promise<Compiler> {
  found ??= findCompiler(options).catch((error: unknown) => {
    found = undefined
    throw error
  })
  return found
}

async function findCompiler(options: FetchOptions): Promise<Compiler> {
  for (const name of ['gcc', 'cc']) {
    const path = findProgram(name)
    if (path && (await linksStatically({ path, args: [] }))) return { path, args: [] }
  }
  return fetchCompiler(options)
}

/** gcc from the cache, whatever the system has. Its parts are found through launchers (-B), its files by --sysroot. */
export async function fetchCompiler(options: FetchOptions = {}): Promise<Compiler> {
  const parts: Record<string, string> = {
    gcc: 'usr/bin/x86_64-linux-gnu-gcc-14',
    cc1: 'usr/libexec/gcc/x86_64-linux-gnu/14/cc1',
    collect2: 'usr/libexec/gcc/x86_64-linux-gnu/14/collect2',
    as: 'usr/bin/x86_64-linux-gnu-as',
    ld: 'usr/bin/x86_64-linux-gnu-ld.bfd',
  }
  const tree = await ensurePackages(
    {
      name: 'gcc',
      suite: 'trixie',
      install: ['gcc-14', 'libc6-dev'],
      launchers: Object.entries(parts).map(([name, program]) => ({ script: `bin/${name}`, program })),
    },
    options,
  )
  const compiler = { path: join(tree, 'bin/gcc'), args: [`-B${join(tree, 'bin')}/`, `--sysroot=${tree}`] }
  if (await linksStatically(compiler)) return compiler
  throw new VmchannelError(
    'ERR_VMCHANNEL_PLATFORM',
    `the fetched compiler ${compiler.path} cannot make a static program`,
    {
      hint: 'install gcc and libc6-dev on the system',
    },
  )
}

async function linksStatically(compiler: Compiler): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'vmchannel-cc-'))
  try {
    const input = Buffer.from('#include <stdio.h>\nint main(void) { return puts("ok") < 0; }\n')
    const args = [...compiler.args, ...FLAGS, '-x', 'c', '-', '-o', join(folder, 'a')]
    return (await tryCommand(compiler.path, args, { input })).status === 0
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/**
 * The path of a static program. Without `source` it is made from `lab/guest/NAME.c` or all .c files of the folder
 * `lab/guest/NAME/`.
 */
export async function guestProgram(name: string, source?: string, options: FetchOptions = {}): Promise<string> {
  const files = source === undefined ? await sourceFiles(name) : []
  const hash = createHash('sha256')
    .update(FLAGS.join())
    .update(source ?? '')
  for (const file of files) hash.update(file.slice(file.lastIndexOf('/'))).update(await readFile(file))
  const folder = join(cacheRoot(), 'guest', `${name}-${hash.digest('hex').slice(0, 16)}`)
  const program = join(folder, name)
  if (existsSync(program)) return program

  const { path, args } = await ensureCompiler(options)
  const building = `${folder}.${process.pid}`
  await rm(building, { recursive: true, force: true })
  await mkdir(building, { recursive: true })
  if (source !== undefined) {
    files.push(join(building, `${name}.c`))
    await writeFile(join(building, `${name}.c`), source)
  }
  const sources = files.filter((file) => file.endsWith('.c'))
  const result = await tryCommand(path, [...args, ...FLAGS, ...sources, '-o', join(building, name)])
  if (result.status !== 0) {
    await rm(building, { recursive: true, force: true })
    throw longError('ERR_VMCHANNEL_INTERNAL', `guest program ${name} does not compile:\n${result.stderr}`)
  }
  if (result.stderr) process.stderr.write(result.stderr)
  await rename(building, folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error // somebody else was faster: same bytes
    return rm(building, { recursive: true, force: true })
  })
  return program
}

async function sourceFiles(name: string): Promise<string[]> {
  const single = guestSource(`${name}.c`)
  if (existsSync(single)) return [single]
  const folder = guestSource(name)
  if (existsSync(folder) && statSync(folder).isDirectory()) {
    return (await readdir(folder))
      .filter((file) => /\.[ch]$/.test(file))
      .toSorted()
      .map((file) => join(folder, file))
  }
  throw new VmchannelError(
    'ERR_VMCHANNEL_NOT_FOUND',
    `no guest program ${name}: neither ${single} nor ${folder}/ is there`,
  )
}
