/** `vmchannel udev print|install|uninstall`. */

import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { spawnSync } from 'node:child_process'
import { VmchannelError } from '../errors.ts'
import { HELPER_PATH, HELPER_SCRIPT } from '../udev/helper.ts'
import { installerScript } from '../udev/installer.ts'
import { installGuestFiles, uninstallGuestFiles, type Change } from '../udev/install.ts'
import { helperFile, mdevLine, MDEV_CONF_PATH, udevFiles, udevRules, type Access } from '../udev/rules.ts'
import { print, printJson, say } from './print.ts'
import { columns } from './text.ts'
import type { Call, Run } from './table.ts'

export const printUdev: Run = async ({ options }) => {
  const mdev = options['mdev'] === true
  const access = readAccess(options)
  if (options['json']) {
    const line = { path: MDEV_CONF_PATH, mode: 0o644, text: `${mdevLine(access)}\n` }
    printJson({ files: mdev ? [helperFile(), line] : udevFiles(access) })
    return
  }
  const texts: Record<string, () => string> = {
    installer: () => installerScript(mdev, access),
    helper: () => HELPER_SCRIPT,
    rules: () => udevRules(access),
    'mdev.conf': () => `${mdevLine(access)}\n`,
  }
  print(texts[options['part'] as string]!())
}

export const installUdev: Run = async ({ options }) => {
  const root = resolve(options['root'] as string)
  const mdev = options['mdev'] === true
  const changes = installGuestFiles(root, mdev, readAccess(options))
  report(changes, options)
  if (root !== '/') return
  if (mdev) {
    run('/bin/sh', [HELPER_PATH, 'scan'])
    say('Ports that come later are named by "mdev -d", or by mdev as the hotplug helper of the kernel.')
  } else if (existsSync('/run/udev/control')) {
    run('udevadm', ['control', '--reload'])
    run('udevadm', ['trigger', '--action=change', '--subsystem-match=virtio-ports'])
  } else say('No udev runs here: the rules take effect when one does.')
}

export const uninstallUdev: Run = async ({ options }) => {
  const root = resolve(options['root'] as string)
  const changes = uninstallGuestFiles(root)
  report(changes, options)
  if (root === '/' && changes.length > 0 && existsSync('/run/udev/control')) {
    run('udevadm', ['control', '--reload'])
    run('udevadm', ['trigger', '--action=change', '--subsystem-match=virtio-ports'])
  }
}

function report(changes: readonly Change[], options: Call['options']): void {
  if (options['json']) printJson({ changes })
  else if (changes.length === 0) say('There was nothing to remove.')
  else print(columns(changes.map(({ action, path }) => [action, path])))
}

function run(file: string, args: readonly string[]): void {
  const { status, error } = spawnSync(file, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  if (error) say(`vmchannel: ${file} does not run: ${error.message}`)
  else if (status !== 0) say(`vmchannel: ${file} ${args.join(' ')} ended with status ${status}`)
}

/** Both go into files that root's programs read: nothing but what a name or a mode can be. */
function readAccess({ group, mode }: Call['options']): Access {
  const access: Access = {}
  if (group !== undefined) {
    if (!/^[A-Za-z_0-9][A-Za-z0-9_.-]{0,31}$/.test(group as string))
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', `--group ${group as string} is no name of a group`, {
        hint: 'name a group of the guest, e.g. --group dialout',
      })
    access.group = group as string
    access.mode = '0660'
  }
  if (mode !== undefined) {
    if (!/^0?[0-7]{3}$/.test(mode as string))
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', `--mode ${mode as string} are no permission bits`, {
        hint: 'write three octal digits, e.g. --mode 0660',
      })
    access.mode = (mode as string).padStart(4, '0')
  }
  return access
}
