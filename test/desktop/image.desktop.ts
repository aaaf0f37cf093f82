/** The desktop guest on our device: what later tests take for granted of it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AS_GUEST, desktopGuest, desktopUp } from '../../lab/desktop-guest.ts'
import { Rig, until } from '../machine/rig.ts'

const SESSION = "loginctl list-sessions --no-legend | awk '/seat0/ { print $1 }'"

describe('the desktop guest', () => {
  let rig: Rig
  beforeAll(async () => {
    rig = await Rig.start({
      ...(await desktopGuest()),
      kernel: '6.12',
      ports: ['unix,name=org.qemu.guest_agent.0', 'unix,name=com.redhat.spice.0'],
    })
    await desktopUp(rig.machine)
  })
  afterAll(() => rig?.close())

  const session = (key: string): Promise<string> =>
    rig.machine.sh(`loginctl show-session $(${SESSION}) --value -p ${key}`)

  it('has a graphical session on seat0', async () => {
    expect(await session('Type')).toBe('x11')
    expect(await session('Active')).toBe('yes')
    expect(await rig.machine.sh('systemctl is-system-running --wait', { timeout: 120_000 })).toBe('running')
  })

  it('locks and unlocks when logind says so', async () => {
    expect(await session('LockedHint')).toBe('no')
    await until(async () => (await rig.machine.run('pgrep xss-lock')).status === 0, 'the locker runs', 60_000)
    // A locker that has only just started has not heard the first word.
    await until(
      async () => {
        await rig.machine.sh('loginctl lock-sessions')
        return (await session('LockedHint')) === 'yes'
      },
      'locked',
      60_000,
    )
    await rig.machine.sh('loginctl unlock-sessions')
    await until(async () => (await session('LockedHint')) === 'no', 'unlocked', 60_000)
  })

  it('has a clipboard, and an agent for it that opens its port', async () => {
    await rig.machine.sh(`echo -n hello | ${AS_GUEST} xclip -i -selection clipboard`)
    expect(await rig.machine.sh(`${AS_GUEST} xsel --clipboard --output`)).toBe('hello')
    await until(() => rig.port('com.redhat.spice.0').guestOpen, 'spice-vdagentd opens its port', 60_000)
  })

  it('has qemu-guest-agent on its port', async () => {
    await until(() => rig.port('org.qemu.guest_agent.0').guestOpen, 'qemu-ga opens its port', 60_000)
  })
})
