/**
 * Programs of a desktop, unpacked into the cache, that run here without root and without a screen: X server, Wayland
 * compositor, what moves their clipboards, and spice-vdagent. With them the clipboard is tried against real peers on
 * the host, and both halves of spice-vdagent without a machine (its daemon takes a socket for a port).
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ensurePackages, type FetchOptions } from './packages.ts'

const PROGRAMS = {
  ...{ Xvfb: 'usr/bin/Xvfb', xkbcomp: 'usr/bin/xkbcomp', xclip: 'usr/bin/xclip', xsel: 'usr/bin/xsel' },
  ...{ 'wl-copy': 'usr/bin/wl-copy', 'wl-paste': 'usr/bin/wl-paste', sway: 'usr/bin/sway' },
  ...{ 'spice-vdagent': 'usr/bin/spice-vdagent', 'spice-vdagentd': 'usr/sbin/spice-vdagentd' },
} as const
const PACKAGES = ['xvfb', 'xkb-data', 'x11-xkb-utils', 'xclip', 'xsel', 'wl-clipboard', 'sway', 'spice-vdagent']
const KEYBOARDS = { inTree: 'usr/share/X11/xkb' }
/** Libraries that none of these loads: they come with packages that recommend more than is linked. */
const UNUSED =
  /^lib(llvm|z3-|gl1-mesa|gallium|perl|icu|xml2|ssl|gnutls|krb5|k5|gss|cups|avahi|colord|systemd-shared|db5|unistring|hogweed|pam|crypt|sem|apparmor|ip4tc|kmod|argon|cryptsetup|devmapper|debconf|gtk-3-(bin|common)|.*-(common|data|bin)=)/

/** The folder to put in front of PATH. */
export async function ensureDesktopTools(options: FetchOptions = {}): Promise<string> {
  const tree = await ensurePackages(
    {
      name: 'desktop-tools',
      suite: 'trixie',
      install: PACKAGES,
      keep: new RegExp(`^(lib.*|zlib1g|${PACKAGES.join('|')})=`),
      drop: UNUSED,
      finish: (unpacked) => ownKeyboardCompiler(join(unpacked, PROGRAMS.Xvfb)),
      launchers: Object.entries(PROGRAMS).map(([name, program]) => ({
        script: `bin.vmchannel/${name}`,
        program,
        env: { XKB_CONFIG_ROOT: KEYBOARDS },
        args: name === 'Xvfb' ? ['-xkbdir', KEYBOARDS, '-nolisten', 'tcp', '-extension', 'GLX'] : [],
        ...(name === 'Xvfb' && { cwd: 'bin.vmchannel' }),
      })),
    },
    options,
  )
  return join(tree, 'bin.vmchannel')
}

/** An X server looks for xkbcomp in /usr/bin and nowhere else; this one in its working folder. */
async function ownKeyboardCompiler(server: string): Promise<void> {
  const bytes = await readFile(server)
  const at = bytes.indexOf('\0/usr/bin\0')
  if (at < 0) throw new Error(`${server}: where it looks for xkbcomp is not where it was`)
  bytes.write('.\0', at + 1, 'latin1')
  await writeFile(server, bytes)
}
