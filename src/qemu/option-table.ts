/**
 * Names of QEMU's command-line options, by whether an argument follows. Taken from what 11.1.3 answers to each name;
 * names of other targets and of older versions (8.0 on) are in it too, so that their command lines are read right.
 */

function words(text: string): ReadonlySet<string> {
  return new Set(text.trim().split(/\s+/))
}

export const WITH_ARGUMENT: ReadonlySet<string> = words(`
  D L M accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev compat cpu d debugcon
  device dfilter display drive dtb dump-vmstate echr fda fdb fsdev fw_cfg g gdb global hda hdb hdc hdd icount incoming
  initrd iscsi k kernel loadvm m machine mem-path mon monitor msg mtdblock name net netdev nic numa object option-rom
  overcommit parallel pflash pidfile plugin prom-env qmp qmp-pretty qtest qtest-log readconfig rtc run-with sandbox sd
  seed semihosting-config serial set shim smbios smp spice tpmdev trace usbdevice uuid vga virtfs vnc watchdog-action
  xen-domid
  balloon chroot realtime redir runas smb soundhw tb-size watchdog writeconfig
`)

export const WITHOUT_ARGUMENT: ReadonlySet<string> = words(`
  S daemonize enable-kvm enable-sync-profile full-screen h help jitdump mem-prealloc no-fd-bootchk no-reboot no-shutdown
  no-user-config nodefaults nographic only-migratable perfmap preconfig s semihosting snapshot usb version win2k-hack
  xen-attach xen-domid-restrict
  alt-grab async-teardown ctrl-grab curses enable-fips no-acpi no-hpet no-quit nouserconfig old-param
  one-insn-per-tb portrait sdl singlestep
`)

/** Options of ours among QEMU's; never shown to QEMU. */
export const OWN_OPTIONS: ReadonlySet<string> = words('virtioserial virtio-serial virtioserial-device')

/** Options whose argument may ask for a list: "help" or "?" as one of its words. */
export const WITH_HELP: ReadonlySet<string> = words(`
  L M accel action audio audiodev blockdev boot chardev compat cpu d device display drive fsdev fw_cfg global icount k m
  machine mon msg name net netdev nic numa object overcommit plugin rtc run-with sandbox semihosting-config smbios smp
  soundhw spice tpmdev trace usbdevice vga virtfs vnc watchdog watchdog-action
`)

/** Options whose argument QEMU also takes as JSON. */
export const WITH_JSON: ReadonlySet<string> = words('audiodev blockdev device display netdev object')
