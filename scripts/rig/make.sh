# shellcheck shell=bash
# What `up` and `join` make alike: keys and certificates, and a node with its network and files. Sourced after lib.sh, never run.

# --- certificates -------------------------------------------------------------------------------------------------------
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/$1.key"; }
ca() { # ca FILE CN
  key "$1"
  openssl req -x509 -new -key "$PKI/$1.key" -days 365 -subj "/CN=$2" -out "$PKI/$1.crt" \
    -addext keyUsage=critical,keyCertSign,cRLSign
}
cert() { # cert FILE SUBJECT CA EXTENSIONS
  key "$1"
  openssl x509 -req -in <(openssl req -new -key "$PKI/$1.key" -subj "$2") -CA "$PKI/$3.crt" -CAkey "$PKI/$3.key" \
    -set_serial "0x$(openssl rand -hex 8)" -days 300 -out "$PKI/$1.crt" -extfile <(echo "$4") 2>/dev/null
}
kubeconfig() { # kubeconfig USER SUBJECT
  cert "$1" "$2" kubernetes-ca extendedKeyUsage=clientAuth
  cat >"$PKI/$1.kubeconfig" <<Y
apiVersion: v1
kind: Config
clusters: [{name: rig, cluster: {server: "https://$HUB_IP", certificate-authority-data: $(base64 -w0 "$PKI/kubernetes-ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$PKI/$1.crt"), client-key-data: $(base64 -w0 "$PKI/$1.key")}}]
contexts: [{name: rig, context: {cluster: rig, user: $1}}]
current-context: rig
Y
}

# --- network: a bridge in the hub's namespace, a namespace for each node, no way out -------------------------------------
# one at a time: the first `netns add` on a machine prepares /run/netns
add_netns() { flock "$RIG_DIR/.netns.lock" ip netns add "$RIG_NAME-$1"; }
net() { ip -n "$RIG_NAME-$1" "${@:2}"; }

# --- nodes, each as KIND or NAME=KIND ------------------------------------------------------------------------------------
check_node() { # check_node NODE: is it well written, and is there a root for it?
  [[ $1 =~ ^([a-z0-9][a-z0-9-]{0,30}=)?[a-z0-9]+$ && ! ${1%%=*} =~ ^(hub(-.*)?|up)$ ]] || die "bad node '$1': want KIND or NAME=KIND"
  [ -e "$ROOTS/boot-${1#*=}" ] || die "no root of kind '${1#*=}' in $ROOTS: run 'scripts/node setup ${1#*=}' first"
}
check_member() { # check_member NODE: can it be in a cluster?
  case ${1#*=} in
    containerd21) die "containerd21 cannot be in a cluster: kubelet 1.20 speaks CRI v1alpha2, which it dropped" ;;
    openrc) die "openrc cannot be in a cluster: the kubelet is a systemd service here" ;;
  esac
}

# make_node NODE UNITS: boots it, with these services switched on; where there is a cluster, its kubelet has what it needs
make_node() {
  local name=${1%%=*} kind=${1#*=} units=$2 i ip pods dir unit
  i=$(($(nodes | wc -l) + 1))
  ip=198.51.100.$((10 + i)) pods=198.18.$i.0/24 dir=$STATE/node/$name
  mkdir "$dir"
  echo "v$i" >"$dir/link"
  add_netns "$name"
  net "$name" link set lo up
  net hub link add "v$i" type veth peer name eth0 netns "$RIG_NAME-$name"
  net hub link set "v$i" master br0 up
  net "$name" addr add $ip/24 dev eth0
  net "$name" link set eth0 up
  net "$name" route add 198.19.0.1 dev eth0
  net hub route add $pods via $ip

  # the node's files lie in its overlay's upper folder: $dir/upper over the kind's root
  mkdir -p "$dir"/{upper,work,root,containerd,kubelet} "$dir/upper/etc/systemd/system/multi-user.target.wants"
  echo "$ROOTS/boot-$kind" >"$dir/lower"
  cp -rT "$HERE/node.d" "$dir/upper"
  find "$dir/upper" -type f -path '*/etc/*' -exec sed -i "s|@CONFIG_PATH@|${RIG_CONFIG_PATH:-}|; s|@SYNC@|${RIG_SYNC:-1m}|
    s|@TAINTS@|${RIG_TAINTS:-}|; s|@NODE_IP@|$ip|; s|@POD_SUBNET@|$pods|" {} +
  if [ -e "$PKI/kubernetes-ca.key" ]; then
    kubeconfig "node-$name" "/O=system:nodes/CN=system:node:$name"
    cp "$PKI/kubernetes-ca.crt" "$dir/upper/etc/kubernetes/ca.crt"
    cp "$PKI/node-$name.kubeconfig" "$dir/upper/etc/kubernetes/kubelet.kubeconfig"
  fi
  for unit in $units; do ln -s "../$unit.service" "$dir/upper/etc/systemd/system/multi-user.target.wants/"; done
  echo "$name" >"$dir/upper/etc/hostname"
  printf '127.0.0.1 localhost %s\n%s registry.test proxy.test\n' "$name" "$HUB_IP" >"$dir/upper/etc/hosts"
  : >"$dir/upper/etc/resolv.conf"
  setsid "$HERE/machine" "$name" </dev/null >"$LOG/$name.console" 2>&1 &
}

# wait_runtime NAME: waits for the node's containerd, and puts into it the images that every node has
wait_runtime() {
  local image
  wait_for 120 "containerd in node $1" "$HERE/cri" "$1" RuntimeService/ListPodSandbox </dev/null
  for image in "$STATE"/images/*; do load "$1" <"$image"; done
}
wait_member() { # wait_member NAME: waits until the node is in the cluster and Ready
  wait_for 120 "node $1 to register" api "/api/v1/nodes/$1"
  kube wait --for=condition=Ready "node/$1" --timeout=120s >/dev/null
}
