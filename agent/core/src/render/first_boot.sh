#!/bin/sh
# @set@
# Puts each anchor where the node's trust store wants it, and runs the store's own tool. Run again, it changes nothing.
# --restart-runtime: for a first boot; if the store changed, a container runtime that runs already is started anew.
set -u
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
unset TRANSACTIONAL_UPDATE # SUSE's tool would only leave a note

say() { echo "nodetrust: $*" >&2; }
fail() { say "$*"; exit 1; }

case ${1-} in
  '' | --restart-runtime) ;;
  *) say "unknown argument $1: want --restart-runtime or nothing"; exit 64 ;;
esac
[ "$(id -u)" = 0 ] || fail "cannot write the trust store: run this as root"

# field NAME: a field of os-release, in lower-case letters
field() {
  for file in /etc/os-release /usr/lib/os-release; do
    [ -r "$file" ] || continue
    sed -n "s/^[[:space:]]*$1=//p" "$file" | tail -n 1 | tr -d "\"'" | tr '[:upper:]' '[:lower:]'
    return
  done
}

# family_of ID: the trust store that a system has
family_of() {
  case $1 in
    # @systems@
  esac
}

# first PATH...: the first of them that exists
first() {
  for path; do
    if [ -e "$path" ]; then echo "$path"; return; fi
  done
}

is_script() {
  IFS= read -r line <"$1" || return 1
  case $line in '#!'*) ;; *) return 1 ;; esac
}

is_debian_script() { [ -e "$1" ] && is_script "$1" && grep -q 'LOCALCERTSDIR=' "$1"; }

# find_family: by os-release and by what is there, as `nodetrust stores` does
find_family() {
  id=$(field ID) likes=$(field ID_LIKE)
  id=${id:-linux}
  certificates=$(first /usr/sbin/update-ca-certificates /usr/bin/update-ca-certificates)
  trust=$(first /usr/bin/update-ca-trust /usr/sbin/update-ca-trust)
  case $id in
    # @native@
  esac
  named=$(family_of "$id")
  if [ -z "$named" ]; then
    for like in $likes; do
      named=$(family_of "$like")
      [ -z "$named" ] || break
    done
    case $named in flatcar | photon) named='' ;; esac
  fi
  case $named in
    flatcar | photon | alpine)
      for path in /usr/sbin/update-ca-certificates /usr/bin/update-ca-certificates; do
        ! is_debian_script "$path" || fail "os-release (ID=$id) means the $named store, but $path is Debian's script; nothing is changed"
      done ;;
  esac
  case $named in flatcar | photon) family=$named; return ;; esac
  candidates=''
  if [ -n "$trust" ]; then
    [ ! -e /etc/pki/ca-trust/source ] || candidates="$candidates redhat"
    [ ! -e /etc/ca-certificates/trust-source ] || candidates="$candidates arch"
  fi
  if [ -n "$certificates" ]; then
    if [ "$named" = debian ] || [ "$named" = alpine ]; then candidates="$candidates $named"
    elif [ -e /etc/pki/trust ]; then candidates="$candidates suse"
    elif is_script "$certificates"; then candidates="$candidates debian"
    else candidates="$candidates alpine"; fi
  fi
  [ -n "$candidates" ] || fail "no trust store here (ID=$id): install the distribution's package ca-certificates, then run this again"
  case "$candidates " in
    *" $named "*) family=$named; return ;;
  esac
  [ -z "$named" ] || fail "os-release (ID=$id) means the $named store, but what is there is another one:$candidates; nothing is changed"
  family=${candidates# }
  case $family in
    *' '*) fail "the host has the tools of several stores:$candidates; set store.family, and render this anew" ;;
  esac
}

# choose_store: what differs between the families
choose_store() {
  tool='' arguments='' leaves_out=''
  case $family in
    # @stores@
  esac
  [ "$family" = directory ] || [ -n "$tool" ] || fail "the tool of the $family store is missing: install the distribution's package ca-certificates, then run this again"
}

put_in_place() { chmod 0644 "$1" && mv -f "$1" "$2"; }

changed='' files=''

# put FP16 [not-ca]: writes an anchor file from standard input, unless it is there already
put() {
  content=$(cat; echo .)
  if [ -n "$leaves_out" ] && [ "${2-}" = not-ca ]; then
    say "nodetrust-$1 is left out: the $family store drops what is not a CA for servers"
    return
  fi
  file=$anchors/nodetrust-$1.$extension
  files="$files $file"
  if [ -f "$file" ] && [ ! -L "$file" ] && [ "$(cat "$file"; echo .)" = "$content" ]; then
    return
  fi
  temporary=$temporaries/.nodetrust-$1.tmp
  { printf %s "${content%.}" >"$temporary" && put_in_place "$temporary" "$file"; } || fail "cannot write $file"
  changed=yes
}

# missing: the anchor files whose certificate the bundle does not have; the line before its last one is in no other certificate
missing() {
  [ "$family" != directory ] || return 0
  for file in $files; do
    line=$(tail -n 3 "$file" | head -n 1)
    grep -q -x -F -e "$line" "$bundle" 2>/dev/null || printf ' %s' "$file"
  done
}

extract() {
  case $family in
    directory) ;;
    photon)
      # shellcheck disable=SC2086 # several words
      "$tool" $arguments >&2 || say "$tool $arguments ended with code $?"
      new=${bundle%/*}/.nodetrust-bundle.tmp
      { cat "$anchors"/*.pem >"$new" && put_in_place "$new" "$bundle"; } || fail "cannot write $bundle" ;;
    *)
      # shellcheck disable=SC2086 # several words, or none
      "$tool" $arguments >&2 || say "$tool ended with code $?" ;;
  esac
}

restart_runtime() {
  command -v systemctl >/dev/null 2>&1 || return 0
  for unit in @units@; do
    if systemctl is-active --quiet "$unit"; then
      say "restarting $unit, which has read the trust store before"
      systemctl restart "$unit" || fail "cannot restart $unit: see journalctl -u $unit"
    fi
  done
}

# @family@
choose_store
mkdir -p "$anchors" || fail "cannot make $anchors"

# @anchors@

if [ -z "$changed" ] && [ -z "$(missing)" ]; then
  say "the $family store has every anchor already"
  exit 0
fi
extract
lacking=$(missing)
[ -z "$lacking" ] || fail "not in $bundle after the run of $tool:$lacking; run $tool by hand and read its messages"
[ "${1-}" != --restart-runtime ] || restart_runtime
