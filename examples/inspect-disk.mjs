// What is on a disk image, without mounting it and without root: node examples/inspect-disk.mjs disk.qcow2
// Needs libguestfs's appliance: the package libguestfs0 and supermin, or LIBGUESTFS_PATH.
import { inspectDisk } from 'vmchannel'

const report = await inspectDisk(process.argv[2])
for (const { hostname, distro, majorVersion, minorVersion, applications } of report.systems) {
  const last = applications.at(-1)?.name
  console.log(
    `${hostname} runs ${distro} ${majorVersion}.${minorVersion}, with ${applications.length} packages;`,
    `the last in its list is ${last}`,
  )
}
