# bash completion for vmchannel; made by "vmchannel completion bash"
_vmchannel_options() {
  case $1 in
    '') echo '-V --version -h --help --help' ;;
    'qemu') echo '--qemu-binary --dry-run --json --state-dir --keeper --log --help' ;;
    'serve') echo '-c --config --vm --socket -p --port --max-ports --transport -m --memory --control --state-dir --keeper --log --print-config --json --help' ;;
    'port') echo '--help' ;;
    'port list') echo '--vm --control --json --help' ;;
    'port add') echo '--vm --control --json --help' ;;
    'port remove') echo '--vm --control --json --help' ;;
    'port resize') echo '--vm --control --json --help' ;;
    'port stats') echo '--vm --control -w --watch --json --help' ;;
    'connect') echo '--vm --control --exit-on-eof --escape --help' ;;
    'agent') echo '--help' ;;
    'agent ping') echo '--timeout --port --socket --vm --control --json --help' ;;
    'agent info') echo '--timeout --port --socket --vm --control --json --help' ;;
    'agent exec') echo '--timeout --port --socket --vm --control --json -i --stdin -e --env --help' ;;
    'agent get') echo '--timeout --port --socket --vm --control --json --via --help' ;;
    'agent put') echo '--timeout --port --socket --vm --control --json --via --mode --help' ;;
    'agent fsfreeze') echo '--timeout --port --socket --vm --control --json --help' ;;
    'agent fsthaw') echo '--timeout --port --socket --vm --control --json --help' ;;
    'agent fsstatus') echo '--timeout --port --socket --vm --control --json --help' ;;
    'agent shutdown') echo '--timeout --port --socket --vm --control --json --mode --help' ;;
    'agent call') echo '--timeout --port --socket --vm --control --json --help' ;;
    'screenlock') echo '--port --socket --vm --control --via --guest-script --json --help' ;;
    'doctor') echo '--qemu-binary --json --help' ;;
    'inspect') echo '-a --applications --format --qemu-binary --json --help' ;;
    'clipboard') echo '--backend --direction --limit --types --primary --timeout --port --socket --vm --control --json --help' ;;
    'udev') echo '--help' ;;
    'udev print') echo '--mdev --group --mode --part --json --help' ;;
    'udev install') echo '--mdev --group --mode --root --json --help' ;;
    'udev uninstall') echo '--root --json --help' ;;
    'completion') echo '--help' ;;
    'help') echo '--help' ;;
    'guest') echo '--device --driver --usernet --address --share --force -q --quiet --help' ;;
  esac
}

_vmchannel_words() {
  case $1 in
    '') echo 'qemu serve port connect agent screenlock doctor inspect clipboard udev completion help guest' ;;
    'port') echo 'list add remove resize stats' ;;
    'agent') echo 'ping info exec get put fsfreeze fsthaw fsstatus shutdown call' ;;
    'udev') echo 'print install uninstall' ;;
    'completion') echo 'bash zsh fish' ;;
    'help') echo 'ports transports config environment exit-codes qemu serve port connect agent screenlock doctor inspect clipboard udev completion help guest' ;;
  esac
}

# Completes the value of option $1; fails where it is no option with a value.
_vmchannel_value() {
  case $1 in
    --qemu-binary) COMPREPLY=($(compgen -f -- "$current")) ;;
    --state-dir) COMPREPLY=($(compgen -d -- "$current")) ;;
    --keeper) COMPREPLY=($(compgen -W 'on off' -- "$current")) ;;
    --log) COMPREPLY=($(compgen -W 'error warn info debug' -- "$current")) ;;
    -c) COMPREPLY=($(compgen -f -- "$current")) ;;
    --config) COMPREPLY=($(compgen -f -- "$current")) ;;
    --vm) COMPREPLY=($(compgen -W "$(vmchannel port list --json 2>/dev/null | tr '{' '\n' | sed -n 's/.*"vm":"\([^"\\]*\)".*/\1/p' | sort -u)" -- "$current")) ;;
    --socket) COMPREPLY=($(compgen -f -- "$current")) ;;
    -p) : ;;
    --port) : ;;
    --max-ports) : ;;
    --transport) COMPREPLY=($(compgen -W 'vfio-user usernet' -- "$current")) ;;
    -m) : ;;
    --memory) : ;;
    --control) COMPREPLY=($(compgen -f -- "$current")) ;;
    --escape) : ;;
    --timeout) : ;;
    -e) : ;;
    --env) : ;;
    --via) COMPREPLY=($(compgen -W 'agent port' -- "$current")) ;;
    --mode) : ;;
    --format) COMPREPLY=($(compgen -W 'raw qcow2 vmdk vdi vhdx vpc qed' -- "$current")) ;;
    --backend) COMPREPLY=($(compgen -W 'auto x11 wayland xclip xsel' -- "$current")) ;;
    --direction) COMPREPLY=($(compgen -W 'both to-guest to-host' -- "$current")) ;;
    --limit) : ;;
    --types) : ;;
    --group) : ;;
    --part) COMPREPLY=($(compgen -W 'installer helper rules mdev.conf' -- "$current")) ;;
    --root) COMPREPLY=($(compgen -d -- "$current")) ;;
    --device) : ;;
    --driver) COMPREPLY=($(compgen -W 'uio vfio' -- "$current")) ;;
    --address) : ;;
    *) return 1 ;;
  esac
}

_vmchannel() {
  local current=${COMP_WORDS[COMP_CWORD]} path='' count=0 skip='' word
  COMPREPLY=()
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [ -n "$skip" ]; then skip=''; continue; fi
    case $word in
      -*) _vmchannel_takes_value "$word" && skip=1 ;;
      *)
        if [ -z "$path" ]; then path=$word
        elif [ $count -eq 0 ] && [[ " port agent udev " == *" $path "* ]]; then path="$path $word"; count=1
        elif [ "$path" = qemu ]; then COMPREPLY=($(compgen -f -- "$current")); return
        fi
        ;;
    esac
  done
  if [ -n "$skip" ]; then
    _vmchannel_value "${COMP_WORDS[COMP_CWORD-1]}"
  elif [[ $current == -* ]]; then
    COMPREPLY=($(compgen -W "$(_vmchannel_options "$path")" -- "$current"))
  else
    COMPREPLY=($(compgen -W "$(_vmchannel_words "$path")" -- "$current"))
    case $path in
      'port remove' | 'port resize' | 'port stats' | 'connect') COMPREPLY=($(compgen -W "$(vmchannel port list --json 2>/dev/null | tr '{' '\n' | sed -n 's/.*"name":"\([^"\\]*\)".*/\1/p')" -- "$current")) ;;
      qemu) COMPREPLY=($(compgen -f -- "$current")) ;;
    esac
  fi
}

_vmchannel_takes_value() {
  case $1 in
    --qemu-binary | --state-dir | --keeper | --log | -c | --config | --vm | --socket | -p | --port | --max-ports | --transport | -m | --memory | --control | --escape | --timeout | -e | --env | --via | --mode | --format | --backend | --direction | --limit | --types | --group | --part | --root | --device | --driver | --address) return 0 ;;
  esac
  return 1
}

complete -o filenames -F _vmchannel vmchannel
