/** The names /dev/vmchN by busybox mdev, from what `vmchannel udev print --mdev` prints and nothing else. */
import { describe } from 'vitest'
import { installerScript } from '../../src/udev/installer.ts'
import { namesPorts } from './naming.ts'

describe.each([
  ['debugfs where it belongs', ''],
  ['debugfs mounted nowhere', 'umount /sys/kernel/debug'],
])('mdev, %s', (_, init) => {
  const files = { '/root/install.sh': { text: installerScript(true) } }
  namesPorts(() => Promise.resolve({ files, init }), 'sh /root/install.sh; pidof mdev || mdev -d')
})
