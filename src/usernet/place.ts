/**
 * Where the two ends of a link meet: a network of user networking with nothing in it but this, and the arguments that
 * make QEMU have it. The network is not the usual 10.0.2.0/24, which another card of the guest may be in.
 */

export const USERNET_NETWORK = '10.118.109.0/24'
/** The address that the guest's card gets by DHCP, or by hand. */
export const USERNET_GUEST = '10.118.109.15'
export const USERNET_HOST = '10.118.109.100'
export const USERNET_PORT = 7644
/** The card is known by it in the guest. */
export const USERNET_MAC = '52:54:00:76:6d:63'

/** Arguments that give QEMU the network; `socket` is the host end's, `id` names what is made. */
export function usernetArguments(socket: string, id: string): string[] {
  // Without a boot ROM: there is nothing to boot from, and some QEMUs come without the file.
  const card = { driver: 'virtio-net-pci', id, netdev: `${id}-n`, mac: USERNET_MAC, romfile: '' }
  const forward = `tcp:${USERNET_HOST}:${USERNET_PORT}-chardev:${id}-c`
  return [
    ...['-chardev', `socket,id=${id}-c,path=${socket.replaceAll(',', ',,')}`],
    ...['-netdev', `user,id=${id}-n,net=${USERNET_NETWORK},restrict=on,guestfwd=${forward}`],
    ...['-device', JSON.stringify(card)],
  ]
}
