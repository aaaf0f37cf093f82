/**
 * A private apt root in the cache folder: own source list, package lists, archives and (empty) dpkg status. Nothing on
 * the system is read for it but the mirror and the proxy settings, nothing is changed, and no privilege is needed.
 * Called by packages.ts, and by desktop-image.ts for its sources.
 */
import { existsSync } from 'node:fs'
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { join } from 'node:path'
import { VmchannelError } from '../../src/errors.ts'
import { command } from '../command.ts'
import { findProgram } from '../paths.ts'

export type Suite = 'bookworm' | 'trixie' | 'trixie-backports'

const SUITES: readonly Suite[] = ['bookworm', 'trixie', 'trixie-backports']
const ARCHITECTURE = 'amd64'
const LISTS_MAX_AGE = 12 * 3600e3
const KEYRINGS = ['/usr/share/keyrings/debian-archive-keyring.gpg', '/usr/share/keyrings/debian-archive-keyring.pgp']

export class PrivateApt {
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
  }

  /** Writes the configuration, and gets the package lists where they are missing or old. */
  async prepare(onStep: (text: string) => void): Promise<void> {
    for (const tool of ['apt-get', 'dpkg']) {
      if (findProgram(tool)) continue
      throw new VmchannelError(
        'ERR_VMCHANNEL_PLATFORM',
        `the lab needs Debian's package tools: there is no ${tool} on PATH`,
        {
          hint: 'install apt and dpkg, or run the lab on Debian; or point VMCHANNEL_CACHE at a cache that is already filled',
        },
      )
    }
    if (process.arch !== 'x64') {
      throw new VmchannelError(
        'ERR_VMCHANNEL_PLATFORM',
        `the lab fetches ${ARCHITECTURE} programs, this machine is ${process.arch}`,
      )
    }
    const root = this.#folder
    for (const part of ['lists/partial', 'cache/archives/partial', 'empty'])
      await mkdir(join(root, part), { recursive: true })
    await writeFile(join(root, 'status'), '')
    const mirror = await findMirror()
    const keyring = KEYRINGS.find((path) => existsSync(path))
    const options = `[arch=${ARCHITECTURE}${keyring ? ` signed-by=${keyring}` : ''}]`
    await writeFile(
      join(root, 'sources.list'),
      SUITES.map((suite) => `deb ${options} ${mirror} ${suite} main\n`).join(''),
    )
    await writeFile(join(root, 'apt.conf'), aptConfig())
    const stamp = join(root, 'updated')
    const age = Date.now() - ((await stat(stamp).catch(() => undefined))?.mtimeMs ?? 0)
    if (age < LISTS_MAX_AGE) return
    onStep('package lists')
    await this.#apt(['update'])
    await writeFile(stamp, '')
  }

  /** The line of its source list for a suite; after `prepare`. */
  async sources(suite: Suite): Promise<string> {
    const lines = (await readFile(join(this.#folder, 'sources.list'), 'utf8')).split('\n')
    return lines.find((line) => line.endsWith(` ${suite} main`)) ?? ''
  }

  /** Names with versions (`name=version`) of everything that installing `names` on an empty machine would bring. */
  async plan(suite: Suite, names: readonly string[]): Promise<string[]> {
    const text = (await this.#apt(['--simulate', '-t', suite, 'install', ...names])).toString()
    const plan = [...text.matchAll(/^Inst (\S+) \((\S+)/gm)].map((found) => `${found[1]}=${found[2]}`)
    if (plan.length > 0) return plan
    throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', `apt has no plan for ${names.join(' ')} of ${suite}`)
  }

  /** Puts the .deb files into `folder`; those that are there already are only checked. */
  async download(folder: string, packages: readonly string[], onFile: (count: number) => void): Promise<void> {
    await mkdir(folder, { recursive: true })
    let count = 0
    const onLine = (line: string) => {
      if (/^(Get|Hit):\d+/.test(line)) onFile(++count)
    }
    await this.#apt(['download', ...packages], { cwd: folder, onLine })
  }

  async #apt(
    args: readonly string[],
    options: { cwd?: string; onLine?: (line: string) => void } = {},
  ): Promise<Buffer> {
    try {
      const own = ['-c', join(this.#folder, 'apt.conf'), ...folders(this.#folder)]
      return await command('apt-get', ['-q', ...own, ...args], options)
    } catch (cause) {
      throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `apt-get ${args[0]} failed: ${(cause as Error).message}`, {
        hint: 'look at the network, the proxy settings of apt, and the package debian-archive-keyring; then run it again',
        cause,
      })
    }
  }
}

/**
 * The Debian mirror this system uses. Asked for with `update --print-uris` because that also answers on a fresh
 * machine whose lists are still empty (`indextargets` does not).
 */
async function findMirror(): Promise<string> {
  const override = process.env['VMCHANNEL_DEBIAN_MIRROR']
  if (override) return override
  const uris = (await command('apt-get', ['update', '--print-uris'])).toString()
  for (const [, mirror, suite] of uris.matchAll(/^'([^']+?)\/?\/dists\/([^'/]+)\/(?:In)?Release/gm)) {
    const name = suite?.replace(/-(updates|backports)$/, '')
    if (mirror && /^(bullseye|bookworm|trixie|forky|duke|sid|oldstable|stable|testing|unstable)$/.test(name ?? ''))
      return mirror
  }
  throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', 'apt of this machine knows no Debian mirror', {
    hint: 'set VMCHANNEL_DEBIAN_MIRROR to the base address of one, and install debian-archive-keyring',
  })
}

/** The system's hooks, pins and foreign architectures are switched off; its proxies and network options stay. */
function aptConfig(): string {
  return `
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
#clear APT::Default-Release;
APT::Architecture "${ARCHITECTURE}";
APT::Architectures { "${ARCHITECTURE}"; };
APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "${userInfo().username}";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Debug::NoLocking "true";
Dir::Cache::archives "archives";
Dir::Etc::preferences "/dev/null";
`
}

/** Where its files are. As words of the command line: apt's files cannot say a path with a quote in it. */
function folders(root: string): string[] {
  const places = {
    'Dir::Cache': 'cache',
    'Dir::Etc::preferencesparts': 'empty',
    'Dir::Etc::sourcelist': 'sources.list',
    'Dir::Etc::sourceparts': 'empty',
    'Dir::State::extended_states': 'extended_states',
    'Dir::State::lists': 'lists',
    'Dir::State::status': 'status',
  }
  return Object.entries(places).flatMap(([name, path]) => ['-o', `${name}=${join(root, path)}`])
}
