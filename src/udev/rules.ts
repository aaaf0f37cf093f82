/**
 * The files that give a guest /dev/vmch0, /dev/vmch1… next to /dev/virtio-ports/NAME: for udev a rules file, for mdev a
 * line of mdev.conf, for both the helper. Called by the command `vmchannel udev`, the demo and the lab's guests.
 */

import { HELPER_PATH, HELPER_SCRIPT } from './helper.ts'

export const RULES_PATH = '/etc/udev/rules.d/70-vmchannel.rules'
export const MDEV_CONF_PATH = '/etc/mdev.conf'

export interface Access {
  /** Permission bits of the ports' nodes, octal; 0600 is what the kernel and udev give. */
  mode?: string
  /** Name of the group that the nodes belong to. */
  group?: string
}

export interface GuestFile {
  /** Where it goes in the guest. */
  path: string
  mode: number
  text: string
}

/** The rules for udev. They hold for add and change: a port's name comes in a change event. */
export function udevRules(access: Access = {}): string {
  const more = [
    ...(access.group === undefined ? [] : [`GROUP="${access.group}"`]),
    ...(access.mode === undefined ? [] : [`MODE="${access.mode}"`]),
  ]
  return `# vmchannel: /dev/vmch0, /dev/vmch1, ... for the generic ports of virtio-serial devices (consoles get none),
# next to /dev/virtio-ports/NAME, which udev's own rules make.
SUBSYSTEM!="virtio-ports", GOTO="vmchannel_end"
KERNEL!="vport*", GOTO="vmchannel_end"
ACTION=="remove", RUN+="${HELPER_PATH} release %k", GOTO="vmchannel_end"
${more.length > 0 ? `${more.join(', ')}\n` : ''}ATTR{name}=="vmch[0-9]*", OPTIONS+="link_priority=10"
PROGRAM=="${HELPER_PATH} claim %k", SYMLINK+="%c"
LABEL="vmchannel_end"
`
}

/**
 * The line of mdev.conf. Owner and group are numbers: small guests have no /etc/passwd, and mdev drops a line with a
 * name that it does not know. "*" runs the helper at add, change and remove; "-" lets a later line match
 * as well.
 */
export function mdevLine(access: Access = {}): string {
  const mode = (access.mode ?? '600').replace(/^0+(?=.)/, '')
  return `-vport[0-9]+p[0-9]+ 0:${access.group ?? '0'} ${mode} */bin/sh ${HELPER_PATH}`
}

export function helperFile(): GuestFile {
  return { path: HELPER_PATH, mode: 0o755, text: HELPER_SCRIPT }
}

/** The files of a guest with udev, in the order to write them: a rule must not name a helper that is not there. */
export function udevFiles(access: Access = {}): GuestFile[] {
  return [helperFile(), { path: RULES_PATH, mode: 0o644, text: udevRules(access) }]
}

/** mdev.conf with our line: before all others, because the first line that matches ends the search. */
export function withMdevLine(conf: string, access: Access = {}): string {
  return `${mdevLine(access)}\n${withoutMdevLine(conf)}`
}

export function withoutMdevLine(conf: string): string {
  return conf
    .split('\n')
    .filter((line) => !line.endsWith(` ${HELPER_PATH}`))
    .join('\n')
}
