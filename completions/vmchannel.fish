# fish completion for vmchannel; made by "vmchannel completion fish"
complete -c vmchannel -f
complete -c vmchannel -n __fish_use_subcommand -a qemu -d 'run QEMU with our virtio-serial device plugged in'
complete -c vmchannel -n __fish_use_subcommand -a serve -d 'run devices for a QEMU that you start yourself'
complete -c vmchannel -n __fish_use_subcommand -a port -d 'list, add, remove, resize and measure ports of a device that runs'
complete -c vmchannel -n __fish_use_subcommand -a connect -d 'join this terminal, or a pipe, to a port'
complete -c vmchannel -n __fish_use_subcommand -a agent -d 'run programs and copy files in a guest with qemu-guest-agent, freeze its disks'
complete -c vmchannel -n __fish_use_subcommand -a screenlock -d 'lock the screen of a guest when its last VNC viewer has gone'
complete -c vmchannel -n __fish_use_subcommand -a doctor -d 'say what works on this machine and what to do about the rest'
complete -c vmchannel -n __fish_use_subcommand -a inspect -d 'say what is on a disk image: file systems, operating system, applications'
complete -c vmchannel -n __fish_use_subcommand -a clipboard -d 'share the clipboard of this desktop with a guest that runs spice-vdagent'
complete -c vmchannel -n __fish_use_subcommand -a udev -d 'give a guest the names /dev/vmch0, /dev/vmch1, ...'
complete -c vmchannel -n __fish_use_subcommand -a completion -d 'print the completion script of a shell'
complete -c vmchannel -n __fish_use_subcommand -a help -d 'print help on a command or a topic: ports, config, environment, exit-codes'
complete -c vmchannel -n __fish_use_subcommand -a guest -d 'inside a guest: drive a virtio-serial device without the kernel driver'
complete -c vmchannel -n __fish_use_subcommand -s V -l version -d 'print the version'
complete -c vmchannel -n __fish_use_subcommand -s h -l help -d 'print help; also "vmchannel help COMMAND", "vmchannel help exit-codes"'
complete -c vmchannel -n '__fish_seen_subcommand_from qemu' -l qemu-binary -d 'the QEMU to run; default: the first qemu-system-x86_64 on PATH' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from qemu' -l dry-run -d 'start nothing; print the command line that QEMU would get, quoted for a shell'
complete -c vmchannel -n '__fish_seen_subcommand_from qemu' -l json -d 'with --dry-run: print the whole plan as JSON'
complete -c vmchannel -n '__fish_seen_subcommand_from qemu' -l state-dir -d 'where control sockets and default device sockets go; default $XDG_RUNTIME_DIR/vmchannel, else /run or /tmp' -x -a '(__fish_complete_directories)'
complete -c vmchannel -n '__fish_seen_subcommand_from qemu' -l keeper -d 'a second small process holds all connections and starts the device process again if that dies' -x -a 'on off'
complete -c vmchannel -n '__fish_seen_subcommand_from qemu' -l log -d 'how much the device process tells on standard error' -x -a 'error warn info debug'
complete -c vmchannel -n '__fish_seen_subcommand_from qemu' -F
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -s c -l config -d 'read a configuration file' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -l vm -d 'name of the VM' -x
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -l socket -d 'socket for QEMU; default in the state directory' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -s p -l port -d 'a port; may be given many times' -x
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -l max-ports -d 'room for so many ports, 1 to 511; default 31' -x
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -l transport -d 'a PCI device over vfio-user (default), or user networking: see "vmchannel help transports"' -x -a 'vfio-user usernet'
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -s m -l memory -d 'memory of the guest, for the printed arguments' -x
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -l control -d 'control socket; default in the state directory' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -l state-dir -d 'where control sockets and default device sockets go; default $XDG_RUNTIME_DIR/vmchannel, else /run or /tmp' -x -a '(__fish_complete_directories)'
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -l keeper -d 'a second small process holds all connections and starts the device process again if that dies' -x -a 'on off'
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -l log -d 'how much the device process tells on standard error' -x -a 'error warn info debug'
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -l print-config -d 'print what would be served, as a configuration file, and end'
complete -c vmchannel -n '__fish_seen_subcommand_from serve' -l json -d 'print the arguments as one line of JSON'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and not __fish_seen_subcommand_from list add remove resize stats' -a list -d 'list ports: where they lead, who has them open'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and not __fish_seen_subcommand_from list add remove resize stats' -a add -d 'add a port while the guest runs'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and not __fish_seen_subcommand_from list add remove resize stats' -a remove -d 'remove a port; a program of the guest that has it open gets end of file'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and not __fish_seen_subcommand_from list add remove resize stats' -a resize -d 'tell the guest the size of a console port\'s terminal'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and not __fish_seen_subcommand_from list add remove resize stats' -a stats -d 'bytes in, out and dropped, and other counters of ports'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from list' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from list' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from list' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from add' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from add' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from add' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from remove' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from remove' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from remove' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from remove' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"name":"\\([^"\\\\]*\\)".*/\\1/p\')'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from resize' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from resize' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from resize' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from resize' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"name":"\\([^"\\\\]*\\)".*/\\1/p\')'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from stats' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from stats' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from stats' -s w -l watch -d 'again every second, with rates, until interrupted; with --json a line each time'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from stats' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from port; and __fish_seen_subcommand_from stats' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"name":"\\([^"\\\\]*\\)".*/\\1/p\')'
complete -c vmchannel -n '__fish_seen_subcommand_from connect' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from connect' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from connect' -l exit-on-eof -d 'end when standard input ends, as soon as all of it is on its way'
complete -c vmchannel -n '__fish_seen_subcommand_from connect' -l escape -d 'another escape character: ^A to ^_, or "none"' -x
complete -c vmchannel -n '__fish_seen_subcommand_from connect' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"name":"\\([^"\\\\]*\\)".*/\\1/p\')'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and not __fish_seen_subcommand_from ping info exec get put fsfreeze fsthaw fsstatus shutdown call' -a ping -d 'see whether the agent answers, and how fast'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and not __fish_seen_subcommand_from ping info exec get put fsfreeze fsthaw fsstatus shutdown call' -a info -d 'the guest: system, host name, addresses, users; the agent: version and commands'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and not __fish_seen_subcommand_from ping info exec get put fsfreeze fsthaw fsstatus shutdown call' -a exec -d 'run a program in the guest, with its output and exit status'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and not __fish_seen_subcommand_from ping info exec get put fsfreeze fsthaw fsstatus shutdown call' -a get -d 'copy a file of the guest to the host'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and not __fish_seen_subcommand_from ping info exec get put fsfreeze fsthaw fsstatus shutdown call' -a put -d 'copy a file of the host into the guest'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and not __fish_seen_subcommand_from ping info exec get put fsfreeze fsthaw fsstatus shutdown call' -a fsfreeze -d 'freeze the file systems of the guest, for a snapshot; fsthaw ends that'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and not __fish_seen_subcommand_from ping info exec get put fsfreeze fsthaw fsstatus shutdown call' -a fsthaw -d 'end fsfreeze'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and not __fish_seen_subcommand_from ping info exec get put fsfreeze fsthaw fsstatus shutdown call' -a fsstatus -d 'say whether the file systems of the guest are frozen'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and not __fish_seen_subcommand_from ping info exec get put fsfreeze fsthaw fsstatus shutdown call' -a shutdown -d 'ask the guest to go down'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and not __fish_seen_subcommand_from ping info exec get put fsfreeze fsthaw fsstatus shutdown call' -a call -d 'any other command of the agent; prints its answer as JSON'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from ping' -l timeout -d 'how long the agent may take to answer, a program to end, a file to be copied' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from ping' -l port -d 'name or number of its port; org.qemu.guest_agent.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from ping' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from ping' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from ping' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from ping' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from info' -l timeout -d 'how long the agent may take to answer, a program to end, a file to be copied' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from info' -l port -d 'name or number of its port; org.qemu.guest_agent.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from info' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from info' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from info' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from info' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from exec' -l timeout -d 'how long the agent may take to answer, a program to end, a file to be copied' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from exec' -l port -d 'name or number of its port; org.qemu.guest_agent.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from exec' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from exec' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from exec' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from exec' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from exec' -s i -l stdin -d 'give it what stands on standard input, at most 8 MiB'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from exec' -s e -l env -d 'a variable for it, instead of those of the agent' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from get' -l timeout -d 'how long the agent may take to answer, a program to end, a file to be copied' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from get' -l port -d 'name or number of its port; org.qemu.guest_agent.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from get' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from get' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from get' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from get' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from get' -l via -d 'port adds a port for the file (fast), commands uses the file commands of the agent; a port where there can be one' -x -a 'port commands'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from put' -l timeout -d 'how long the agent may take to answer, a program to end, a file to be copied' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from put' -l port -d 'name or number of its port; org.qemu.guest_agent.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from put' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from put' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from put' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from put' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from put' -l via -d 'port adds a port for the file (fast), commands uses the file commands of the agent; a port where there can be one' -x -a 'port commands'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from put' -l mode -d 'permission bits of the file, octal' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from put' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsfreeze' -l timeout -d 'how long the agent may take to answer, a program to end, a file to be copied' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsfreeze' -l port -d 'name or number of its port; org.qemu.guest_agent.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsfreeze' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsfreeze' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsfreeze' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsfreeze' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsthaw' -l timeout -d 'how long the agent may take to answer, a program to end, a file to be copied' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsthaw' -l port -d 'name or number of its port; org.qemu.guest_agent.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsthaw' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsthaw' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsthaw' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsthaw' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsstatus' -l timeout -d 'how long the agent may take to answer, a program to end, a file to be copied' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsstatus' -l port -d 'name or number of its port; org.qemu.guest_agent.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsstatus' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsstatus' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsstatus' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from fsstatus' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from shutdown' -l timeout -d 'how long the agent may take to answer, a program to end, a file to be copied' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from shutdown' -l port -d 'name or number of its port; org.qemu.guest_agent.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from shutdown' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from shutdown' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from shutdown' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from shutdown' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from shutdown' -l mode -d 'how' -x -a 'powerdown reboot halt'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from call' -l timeout -d 'how long the agent may take to answer, a program to end, a file to be copied' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from call' -l port -d 'name or number of its port; org.qemu.guest_agent.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from call' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from call' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from call' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from agent; and __fish_seen_subcommand_from call' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from screenlock' -l port -d 'name or number of its port; org.qemu.guest_agent.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from screenlock' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from screenlock' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from screenlock' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from screenlock' -l via -d 'agent is qemu-guest-agent, port our own; the latter where the VM has its port' -x -a 'agent port'
complete -c vmchannel -n '__fish_seen_subcommand_from screenlock' -l guest-script -d 'print a shell script that installs our own agent in a guest, and end'
complete -c vmchannel -n '__fish_seen_subcommand_from screenlock' -l json -d 'print a line of JSON for each event'
complete -c vmchannel -n '__fish_seen_subcommand_from screenlock' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from doctor' -l qemu-binary -d 'the QEMU to run; default: the first qemu-system-x86_64 on PATH' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from doctor' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from inspect' -s a -l applications -d 'list what is installed; --json always does'
complete -c vmchannel -n '__fish_seen_subcommand_from inspect' -l format -d 'format of the image; looked for in it where left out' -x -a 'raw qcow2 vmdk vdi vhdx vpc qed'
complete -c vmchannel -n '__fish_seen_subcommand_from inspect' -l qemu-binary -d 'the QEMU to run; default: the first qemu-system-x86_64 on PATH' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from inspect' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from inspect' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from clipboard' -l backend -d 'the clipboard of the host' -x -a 'auto x11 wayland xclip xsel'
complete -c vmchannel -n '__fish_seen_subcommand_from clipboard' -l direction -d 'who may paste what the other one has copied' -x -a 'both to-guest to-host'
complete -c vmchannel -n '__fish_seen_subcommand_from clipboard' -l limit -d 'largest content' -x
complete -c vmchannel -n '__fish_seen_subcommand_from clipboard' -l types -d 'only these: text, image, png, bmp, tiff, jpeg or MIME types, with commas' -x
complete -c vmchannel -n '__fish_seen_subcommand_from clipboard' -l primary -d 'also the selection that the middle button pastes'
complete -c vmchannel -n '__fish_seen_subcommand_from clipboard' -l timeout -d 'give up where no agent answers within this time' -x
complete -c vmchannel -n '__fish_seen_subcommand_from clipboard' -l port -d 'name or number of the port; com.redhat.spice.0 where it is left out' -x
complete -c vmchannel -n '__fish_seen_subcommand_from clipboard' -l socket -d 'the unix socket that the port leads to, where no device process of ours has it' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from clipboard' -l vm -d 'the VM that is meant, where there are several' -x -a '(vmchannel port list --json 2>/dev/null | tr \'{\' \'\\n\' | sed -n \'s/.*"vm":"\\([^"\\\\]*\\)".*/\\1/p\' | sort -u)'
complete -c vmchannel -n '__fish_seen_subcommand_from clipboard' -l control -d 'control socket of the device process; found by itself where there is one' -r -F
complete -c vmchannel -n '__fish_seen_subcommand_from clipboard' -l json -d 'print a line of JSON for each event'
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and not __fish_seen_subcommand_from print install uninstall' -a print -d 'print a shell script that installs them in a guest'
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and not __fish_seen_subcommand_from print install uninstall' -a install -d 'install them in this system, or in a tree'
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and not __fish_seen_subcommand_from print install uninstall' -a uninstall -d 'remove what install wrote'
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from print' -l mdev -d 'for mdev of busybox instead of udev'
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from print' -l group -d 'group of the device nodes, so that its members may open them' -x
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from print' -l mode -d 'permission bits of the device nodes, octal; default 0600, with --group 0660' -x
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from print' -l part -d 'print this instead' -x -a 'installer helper rules mdev.conf'
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from print' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from install' -l mdev -d 'for mdev of busybox instead of udev'
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from install' -l group -d 'group of the device nodes, so that its members may open them' -x
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from install' -l mode -d 'permission bits of the device nodes, octal; default 0600, with --group 0660' -x
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from install' -l root -d 'the top of the tree to work on, e.g. a mounted image' -x -a '(__fish_complete_directories)'
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from install' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from uninstall' -l root -d 'the top of the tree to work on, e.g. a mounted image' -x -a '(__fish_complete_directories)'
complete -c vmchannel -n '__fish_seen_subcommand_from udev; and __fish_seen_subcommand_from uninstall' -l json -d 'print JSON with stable keys, errors too'
complete -c vmchannel -n '__fish_seen_subcommand_from completion' -a bash -d 'which shell'
complete -c vmchannel -n '__fish_seen_subcommand_from completion' -a zsh -d 'which shell'
complete -c vmchannel -n '__fish_seen_subcommand_from completion' -a fish -d 'which shell'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a ports -d 'how a port is written: SPEC'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a transports -d 'which way a port takes: -virtioserial SPEC,transport=WORD'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a config -d 'the configuration file of "vmchannel serve"'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a environment -d 'variables that are read'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a exit-codes -d 'what the exit status says'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a qemu -d 'run QEMU with our virtio-serial device plugged in'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a serve -d 'run devices for a QEMU that you start yourself'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a port -d 'list, add, remove, resize and measure ports of a device that runs'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a connect -d 'join this terminal, or a pipe, to a port'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a agent -d 'run programs and copy files in a guest with qemu-guest-agent, freeze its disks'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a screenlock -d 'lock the screen of a guest when its last VNC viewer has gone'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a doctor -d 'say what works on this machine and what to do about the rest'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a inspect -d 'say what is on a disk image: file systems, operating system, applications'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a clipboard -d 'share the clipboard of this desktop with a guest that runs spice-vdagent'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a udev -d 'give a guest the names /dev/vmch0, /dev/vmch1, ...'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a completion -d 'print the completion script of a shell'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a help -d 'print help on a command or a topic: ports, config, environment, exit-codes'
complete -c vmchannel -n '__fish_seen_subcommand_from help' -a guest -d 'inside a guest: drive a virtio-serial device without the kernel driver'
complete -c vmchannel -n '__fish_seen_subcommand_from guest' -l device -d 'PCI address, as lspci -D prints it; default: the first virtio-serial device' -x
complete -c vmchannel -n '__fish_seen_subcommand_from guest' -l driver -d 'how to reach it; default: vfio behind an IOMMU, uio elsewhere' -x -a 'uio vfio'
complete -c vmchannel -n '__fish_seen_subcommand_from guest' -l usernet -d 'over user networking'
complete -c vmchannel -n '__fish_seen_subcommand_from guest' -l address -d 'with --usernet: where the host end is; default 10.118.109.100:7644' -x
complete -c vmchannel -n '__fish_seen_subcommand_from guest' -l share -d 'let several programs have a port open at a time'
complete -c vmchannel -n '__fish_seen_subcommand_from guest' -l force -d 'take the device even though programs have its ports open'
complete -c vmchannel -n '__fish_seen_subcommand_from guest' -s q -l quiet -d 'say nothing but warnings and errors'
