# shellcheck shell=bash disable=SC2034  # the variables are for the scripts that source this file
# Names, places and functions of the rig: booted nodes with a registry and, if wanted, a Kubernetes cluster. Sourced, never run.
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../lib.sh"

HERE=$REPO/scripts/rig
RIG_DIR=$CACHE/rig
RIG_NAME=${RIG_NAME:-nodes}     # prefix of every network namespace, cgroup and machine: rigs of two names run side by side
BIN=$RIG_DIR/kubernetes         # the programs of Kubernetes
STATE=$RIG_DIR/run/$RIG_NAME    # the running rig: pki/ log/ node/NAME/ registry/ images/ hub/SERVICE
MEM=/dev/shm/$RIG_NAME-rig      # etcd's data and squid's files
PKI=$STATE/pki LOG=$STATE/log
HUB_NET=/run/netns/$RIG_NAME-hub HUB_IP=198.51.100.1
REGISTRY=registry.test:5443
PAUSE=rig.test/busybox:1        # in every node's containerd: the pods' sandbox, and an image for tests

need_root "it makes namespaces, mounts and cgroups"
[[ $RIG_NAME =~ ^[a-z0-9]{1,12}$ ]] || die "RIG_NAME='$RIG_NAME': 1 to 12 lower-case letters and digits, please"

nodes() { [ ! -d "$STATE/node" ] || ls "$STATE/node"; }
need_up() { [ -e "$HUB_NET" ] || die "no nodes of the name $RIG_NAME run: boot one with scripts/node up"; }
need_node() { need_up; [ -d "$STATE/node/$1" ] || die "no node '$1'; there are: $(nodes | xargs)"; }

# wait_for SECONDS WHAT CMD…: repeats CMD until it succeeds
wait_for() {
  local end=$((SECONDS + $1)) what=$2; shift 2
  until ("$@") >/dev/null 2>&1; do [ $SECONDS -lt $end ] || die "gave up waiting for $what; logs are in $LOG"; sleep 0.3; done
}

# Every process of a rig lives in a cgroup $RIG_NAME-NODE, $RIG_NAME-hub-SERVICE or $RIG_NAME-up, so that `down` finds exactly the
# rig's own processes, whatever happened to the shells that started them.
cgroups() { find /sys/fs/cgroup -type d -name "$RIG_NAME-${1:-*}" -prune 2>/dev/null || true; } # groups come and go meanwhile
rig_pids() {
  local dirs; mapfile -t dirs < <(cgroups "${1:-}")
  [ ${#dirs[@]} = 0 ] || find "${dirs[@]}" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un
}

# enter_cgroup NAME: moves this (sub)shell into a new child of its present cgroup, in every hierarchy
enter_cgroup() {
  local lines line controller path dir
  mapfile -t lines </proc/self/cgroup
  for line in "${lines[@]}"; do # "4:memory:/some/path"; "0::/path" is cgroup v2
    line=${line#*:} controller=${line%%:*} path=${line#*:}
    dir=/sys/fs/cgroup/${controller#name=}
    if [ -z "$controller" ]; then dir=/sys/fs/cgroup path=/; [ ! -d $dir/unified ] || dir=$dir/unified; fi
    [ -d "$dir" ] || continue
    dir=$dir${path%/}/$RIG_NAME-$1
    mkdir -p "$dir"
    if [ "$controller" = cpuset ]; then # v1: empty until copied, and then no process can enter
      cat "$dir/../cpuset.cpus" >"$dir/cpuset.cpus"
      cat "$dir/../cpuset.mems" >"$dir/cpuset.mems"
    fi
    echo "$BASHPID" >"$dir/cgroup.procs"
  done
}

# in_hub CMD…: runs CMD in the hub's network, from where no proxy of this machine can be reached. Programs in Go collect garbage less
# often: there is more memory here than processor time.
in_hub() {
  nsenter --net="$HUB_NET" -- env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY -u all_proxy -u ALL_PROXY GOGC=400 "$@"
}
# hub NAME CMD…: starts CMD there; its output goes to $LOG/NAME.log. How it was started is kept for `service`.
hub() {
  local name=$1; shift
  printf '%s\0' "$@" >"$STATE/hub/$name"
  (enter_cgroup "hub-$name"; in_hub setsid --wait "$@") </dev/null >>"$LOG/$name.log" 2>&1 &
}

# leader NODE: the pid, as seen from here, of the node's PID 1: the one process with two pids of which the second is 1
leader() {
  local status
  status=$(rig_pids "$1" | sed 's|.*|/proc/&/status|' | xargs -r grep -lsE '^NSpid:\s+[0-9]+\s+1$' || true)
  [[ $status =~ ([0-9]+) ]] && echo "${BASH_REMATCH[1]}"
}

# in_node NODE CMD…: runs CMD as root in all namespaces of the node
in_node() {
  local pid name=$1; shift
  pid=$(leader "$name") || die "node $name does not run (its console: $LOG/$name.console)"
  nsenter -t "$pid" -m -u -i -n -p -C -r -w -- env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" "$@"
}

# load NODE <ARCHIVE: puts an image into the node's containerd, where pods find it
load() {
  local output
  output=$(in_node "$1" ctr -n k8s.io images import - 2>&1) || die "node $1: $output"
}

kube() { in_hub kubectl --kubeconfig="$PKI/admin.kubeconfig" "$@"; }
# api PATH: what the API server answers; to wait for something, since kubectl takes ten times as long
api() {
  # for an agent named curl the server indents its answer, and one of 1.20 that Go 1.19 has built dies of that
  in_hub curl --disable --user-agent rig --silent --show-error --fail --max-time 20 --cacert "$PKI/kubernetes-ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" "https://$HUB_IP$1"
}

# make_image NAME BINARY OUT.tar: an OCI archive with the one file /bin/BINARY, which it runs. Given busybox, it has all the
# applets and sleeps, so that it serves as the pods' sandbox too.
make_image() {
  local name=$1 binary=$2 out=$3 d base start layer config manifest applet
  [[ $name == *.*/*:* ]] || die "image name '$name': want DOMAIN/NAME:TAG, e.g. example.test/nodetrust:dev"
  [ -f "$binary" ] || die "no file $binary"
  d=$(mktemp -d) base=$(basename "$binary")
  mkdir -p "$d/fs/bin" "$d/oci/blobs/sha256"
  install -m 755 "$binary" "$d/fs/bin/$base"
  start='"Entrypoint":["/bin/'$base'"]'
  if [ "$base" = busybox ]; then
    start='"Cmd":["/bin/sleep","2147483647"]'
    for applet in $("$binary" --list); do [ "$applet" = busybox ] || ln -s busybox "$d/fs/bin/$applet"; done
  fi
  blob() { # blob FILE MEDIATYPE: moves FILE into the blob store, prints its descriptor without braces
    local sum size; sum=$(sha256sum <"$1"); sum=${sum%% *}; size=$(stat -c %s "$1"); mv "$1" "$d/oci/blobs/sha256/$sum"
    printf '"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%d' "$2" "$sum" "$size"
  }
  tar -C "$d/fs" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$d/layer" bin
  layer=$(sha256sum <"$d/layer")
  printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],%s},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$start" "${layer%% *}" >"$d/config"
  layer=$(blob "$d/layer" layer.v1.tar) config=$(blob "$d/config" config.v1+json)
  printf '{"schemaVersion":2,"config":{%s},"layers":[{%s}]}' "$config" "$layer" >"$d/manifest"
  manifest=$(blob "$d/manifest" manifest.v1+json)
  printf '{"schemaVersion":2,"manifests":[{%s,"platform":{"architecture":"amd64","os":"linux"},"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
    "$manifest" "$name" "${name##*:}" >"$d/oci/index.json"
  echo '{"imageLayoutVersion":"1.0.0"}' >"$d/oci/oci-layout"
  tar -C "$d/oci" -cf "$out" .
  rm -rf "$d"
}
