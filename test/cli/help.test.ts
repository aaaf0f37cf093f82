/** What the command line says of itself, and what it makes of typing errors. */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ensureShellTool } from '../../lab/fetch/shell-tools.ts'
import { findCommand, ROOT as TABLE } from '../../src/cli/commands.ts'
import { generatedFiles } from '../../src/cli/generate.ts'
import { manPage } from '../../src/cli/man.ts'
import { longFlag, type CommandRow } from '../../src/cli/table.ts'
import { EXIT_CODES } from '../../src/errors.ts'
import { VERSION } from '../../src/version.ts'
import { Bench, collect, DROP_IN, MAIN, ROOT } from './run.ts'

const bench = new Bench()
afterAll(() => bench.close())

function rows(row: CommandRow = TABLE, words: string[] = []): { words: string[]; row: CommandRow }[] {
  return [{ words, row }, ...(row.commands ?? []).flatMap((sub) => rows(sub, [...words, sub.name]))]
}

describe('help', () => {
  it.each(rows().map(({ words, row }) => [words.join(' ') || '(root)', words, row] as const))(
    '%s --help: usage, options, examples',
    async (_, words, row) => {
      const { status, stdout, stderr } = await bench.run([...words, '--help'])
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
      expect(stdout).toContain(`Usage: ${['vmchannel', ...words].join(' ')}`)
      for (const option of row.options ?? []) expect(stdout).toContain(longFlag(option))
      if (!row.commands || row === TABLE) expect(stdout).toContain('Examples:')
      expect(
        Math.max(
          ...stdout
            .split('\n')
            .filter((line) => !line.startsWith('      '))
            .map((line) => line.length),
        ),
      ).toBeLessThan(101)
    },
  )

  it('every command can be run, and help finds it', () => {
    for (const { words, row } of rows()) {
      expect(row.load === undefined).toBe(row.commands !== undefined)
      expect(findCommand(words)).toBe(row)
    }
  })

  it('help COMMAND is COMMAND --help', async () => {
    expect((await bench.run(['help', 'port', 'add'])).stdout).toBe((await bench.run(['port', 'add', '--help'])).stdout)
  })

  it('help exit-codes has every status that there is', async () => {
    const { stdout } = await bench.run(['help', 'exit-codes'])
    for (const [code, status] of Object.entries(EXIT_CODES)) {
      expect(stdout).toContain(code)
      expect(stdout).toMatch(new RegExp(`^  ${status} `, 'm'))
    }
  })

  it.each(['ports', 'config', 'environment'])('help %s', async (topic) => {
    const { status, stdout } = await bench.run(['help', topic])
    expect(status).toBe(0)
    expect(stdout).toContain(`${topic}: `)
  })

  it('--version', async () => {
    expect((await bench.run(['--version'])).stdout).toBe(`${VERSION}\n`)
    expect((await bench.run(['-V'])).stdout).toBe(`${VERSION}\n`)
  })

  it('a command without its subcommand prints help on standard error, and is an error', async () => {
    for (const words of [[], ['port'], ['udev']]) {
      const { status, stdout, stderr } = await bench.run(words)
      expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
      expect(stderr).toContain('Usage: vmchannel')
    }
  })
})

describe('typing errors', () => {
  it.each([
    [['prot', 'list'], "unknown command 'prot'", 'Did you mean port?'],
    [['port', 'lst'], "unknown command 'lst'", 'Did you mean list?'],
    [['port', 'list', '--jsn'], "unknown option '--jsn'", 'Did you mean --json?'],
    [['port', 'list', '--quick'], "unknown option '--quick'", 'see "vmchannel port list --help"'],
    [['port', 'add'], "missing required argument 'SPEC'", 'see "vmchannel port add --help"'],
    [['port', 'list', 'x'], 'too many arguments', 'see "vmchannel port list --help"'],
    [['udev', 'print', '--part', 'rulez'], "'rulez' is invalid", 'see "vmchannel udev print --help"'],
    [['completion', 'tcsh'], 'no completion for "tcsh"', 'bash, zsh, fish'],
    [['help', 'exit-code'], 'no help on "exit-code"', 'did you mean "vmchannel help exit-codes"?'],
    [['port', 'resize', '0', '80'], 'COLSxROWS: "80" is no size', 'e.g. 80x24'],
    [['port', 'remove', '511'], 'PORT: 511 is no port number', 'from 0 to 510'],
    [['connect', '0', '--escape', 'x'], '--escape x is no escape character', '^A to ^Z'],
  ])('%j', async (args, message, hint) => {
    const { status, stdout, stderr } = await bench.run(args)
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
    expect(stderr).toMatch(/^vmchannel: /)
    expect(stderr).toContain(message)
    expect(stderr).toContain(hint)
    expect(stderr).not.toContain('    at ')
  })

  it('--json: the error is one line of JSON on standard error', async () => {
    const { status, stdout, stderr } = await bench.run(['port', 'list', '--json'])
    expect({ status, stdout }).toEqual({ status: 5, stdout: '' })
    expect(JSON.parse(stderr)).toEqual({
      error: { code: 'ERR_VMCHANNEL_NOT_FOUND', message: expect.any(String), hint: expect.any(String) },
    })
    expect(stderr.trim().split('\n')).toHaveLength(1)
  })

  it('VMCHANNEL_DEBUG shows where an error came up', async () => {
    const { stderr } = await bench.run(['port', 'list'], { env: { VMCHANNEL_DEBUG: '1' } })
    expect(stderr).toContain('    at ')
  })

  it('a reader that goes away ends it without a word', async () => {
    const { stdout, stderr, status } = spawnSync(
      'sh',
      ['-c', `"${process.execPath}" "${MAIN}" help exit-codes | head -n 1`],
      {
        encoding: 'utf8',
      },
    )
    expect({ stderr, status, lines: stdout.split('\n').length }).toEqual({ stderr: '', status: 0, lines: 2 })
  })
})

describe('files made from the command table', () => {
  it.each(Object.entries(generatedFiles()))('%s is up to date (node dist/src/cli/generate.js)', (path, text) => {
    expect(readFileSync(join(ROOT, path), 'utf8')).toBe(text)
  })

  it('the man page has every command, option and exit status', () => {
    const page = manPage().replaceAll('\\-', '-')
    for (const { words, row } of rows()) {
      if (row !== TABLE) expect(page).toContain(['vmchannel', ...words].join(' '))
      for (const option of row.options ?? []) if (row !== TABLE) expect(page).toContain(longFlag(option))
    }
    for (const code of Object.keys(EXIT_CODES)) expect(page).toContain(code)
  })

  it('man finds nothing wrong with it', ({ skip }) => {
    const pager = 'man'
    const man = spawnSync(pager, ['--warnings', '-l', join(ROOT, 'man/vmchannel.1')], {
      encoding: 'utf8',
      env: { ...process.env, MANWIDTH: '100', LC_ALL: 'C.UTF-8' },
    })
    if (man.error || !man.stdout.includes('VMCHANNEL(1)'))
      skip(`no man that works here (${man.error?.message ?? man.stderr.trim().split('\n')[0]})`)
    expect(man.stderr).toBe('')
  })
})

describe('completion', () => {
  const complete = (line: string): string[] => {
    const words = line.split(' ')
    const script = `source '${join(ROOT, 'completions/vmchannel.bash')}'
COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}; _vmchannel
printf '%s\\n' "\${COMPREPLY[@]}"`
    const { stdout, stderr, status } = spawnSync('bash', ['--norc', '-c', script], {
      encoding: 'utf8',
      cwd: ROOT,
      env: { ...process.env, PATH: `${bench.folder}:${process.env['PATH']}` },
    })
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
    return stdout.split('\n').filter(Boolean)
  }

  it('bash: commands, subcommands, options, choices, topics, files', () => {
    expect(complete('vmchannel ')).toEqual(TABLE.commands!.map(({ name }) => name))
    expect(complete('vmchannel po')).toEqual(['port'])
    expect(complete('vmchannel port ')).toEqual(['list', 'add', 'remove', 'resize', 'stats'])
    expect(complete('vmchannel port list --j')).toEqual(['--json'])
    expect(complete('vmchannel serve --log ')).toEqual(['error', 'warn', 'info', 'debug'])
    expect(complete('vmchannel help exit')).toEqual(['exit-codes'])
    expect(complete('vmchannel completion ')).toEqual(['bash', 'zsh', 'fish'])
    expect(complete('vmchannel serve --config pack')).toContain('package.json')
    expect(complete('vmchannel qemu -drive READ')).toEqual(existsSync(join(ROOT, 'README.md')) ? ['README.md'] : [])
    expect(complete('vmchannel serve --vm x --m')).toEqual(['--max-ports', '--memory'])
  })

  it('bash: names of ports that there are', () => {
    bench.script(
      'vmchannel',
      `#!/bin/sh\necho '[{"vm":"vm0","port":1,"name":"org.example.0"},{"vm":"vm1","port":2,"name":null}]'\n`,
    )
    expect(complete('vmchannel connect ')).toEqual(['org.example.0'])
    expect(complete('vmchannel connect --vm ')).toEqual(['vm0', 'vm1'])
  })

  it.for(['zsh', 'fish'] as const)('%s: the shell itself reads it', async (shell) => {
    const file = join(ROOT, generatedPath(shell))
    const { stderr, status } = spawnSync(await ensureShellTool(shell), ['-n', file], { encoding: 'utf8' })
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 })
  })

  it('the command prints what the file has', async () => {
    for (const shell of ['bash', 'zsh', 'fish'])
      expect((await bench.run(['completion', shell])).stdout).toBe(
        readFileSync(join(ROOT, generatedPath(shell)), 'utf8'),
      )
  })
})

function generatedPath(shell: string): string {
  return Object.keys(generatedFiles()).find(
    (path) => path.endsWith(shell) || path.endsWith(shell === 'zsh' ? '_vmchannel' : '-'),
  )!
}

it('both programs are executable by their first line', async () => {
  for (const file of [MAIN, DROP_IN]) expect(readFileSync(file, 'utf8')).toMatch(/^#!\/usr\/bin\/env node\n/)
  const result = await collect(bench.start(['-version'], { program: DROP_IN, env: { PATH: bench.folder } }))
  expect(result).toMatchObject({ status: 8 })
  expect(result.stderr).toContain('no qemu-system-x86_64 in PATH')
})
