#!/bin/sh
# What the tests want to be on this machine: RabbitMQ, and iptables to cut it off; Chromium, and Node with WebSocket and
# TypeScript. They come from Debian's or Ubuntu's packages, when we may install them. It never fails: where one is
# missing it says why, and the tests skip what needs it (or fail, under CI).
set -u

missing() {
  echo "not all that the tests want ($packages): $1"
  exit 0
}

apt() {
  apt-get --quiet --quiet --yes -o DPkg::Lock::Timeout=120 -o Acquire::Retries=1 -o Acquire::http::Timeout=20 "$@" \
    </dev/null >>"$log" 2>&1
}

install() {
  apt install --no-install-recommends "$@"
}

# Where one can't be had, the others are still wanted.
install_one_by_one() {
  lacking=
  for package in $packages; do
    install "$package" || lacking="$lacking $package"
  done
  packages=$lacking
  [ -z "$packages" ]
}

has_node() {
  node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null
}

has_ws() {
  NODE_PATH=${NODE_PATH:+$NODE_PATH:}/usr/share/nodejs node -e 'require("ws")' 2>/dev/null
}

packages=
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null || packages=rabbitmq-server
PATH=$PATH:/usr/sbin:/sbin command -v iptables >/dev/null || packages="$packages iptables"
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
  packages="$packages chromium"
has_node || packages="$packages nodejs"
has_ws || packages="$packages node-ws"
command -v tsc >/dev/null || packages="$packages node-typescript"
[ -n "$packages" ] || exit 0

command -v apt-get >/dev/null || missing "there is no apt-get here to install them with"
[ "$(id -u)" = 0 ] || missing "only root can install them (apt-get install $packages)"

echo "installing for the tests: $packages"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
made=
trap 'rm -f "$log" $made' EXIT
trap 'exit 130' INT TERM

# Packages ask this script before they start a service. The tests start a RabbitMQ of their own; leave a script that is there.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  made=$policy
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" || missing "$policy can't be written"
fi

# The second time with fresh lists: where there were none, or where they name files that have gone.
install $packages || { apt update && install $packages; } || install_one_by_one || missing "apt-get failed: $(grep -v '^$' "$log" | tail -n 1)"
