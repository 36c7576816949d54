#!/bin/sh
# Makes a bare clone ready to run: npm packages, Debian packages, the build. What is there already
# is left alone, so a second run takes a moment.
#
#   sh tools/setup.sh             for the quickstart
#   sh tools/setup.sh verify      for the tests: with the clients that they talk to, and no build,
#                                 which is one of the checks
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*"; }

# run WHAT COMMAND...: says what is done and how long it took; what the command said, if it fails.
run() {
  what=$1
  shift
  log=$(mktemp)
  start=$(date +%s)
  printf '  %s ... ' "$what"
  if "$@" >"$log" 2>&1 </dev/null; then
    say "$(($(date +%s) - start)) s"
    rm -f "$log"
  else
    say 'FAILED'
    sed 's/^/    /' "$log"
    rm -f "$log"
    return 1
  fi
}

check_node() {
  node -e 'const [a, b] = process.versions.node.split(".").map(Number);
           process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' || {
    say "Keiki needs Node 20.19 or newer; this is $(node --version)."
    exit 1
  }
}

# The copy of the lock file says which packages an earlier run has installed, to the end.
install_npm_packages() {
  cmp -s package-lock.json node_modules/.setup-done && return
  run 'npm packages' npm ci --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.setup-done
}

# sfdisk, mke2fs and e2fsck live where a user's PATH may not look.
has_program() (
  PATH="$PATH:/usr/sbin:/sbin"
  command -v "$1" >/dev/null 2>&1
)

missing=''
want() {
  case "$missing " in
    *" $1 "*) ;;
    *) missing="$missing $1" ;;
  esac
}

# need PACKAGE PROGRAM...: notes the package if one of its programs is not there.
need() {
  package=$1
  shift
  for program in "$@"; do
    has_program "$program" || want "$package"
  done
}

install_debian_packages() {
  need e2fsprogs mke2fs e2fsck debugfs
  need fdisk sfdisk
  need qemu-utils qemu-img qemu-io
  need libnbd-bin nbdinfo nbdcopy
  need util-linux flock setpriv
  if [ "${1-}" = verify ]; then
    need nbdkit nbdkit
    need fio fio
    need jq jq
    need perl-base perl
    need openssl openssl
    need strace strace
    need fuse3 fusermount3
    need mount losetup
    need xfsprogs mkfs.xfs xfs_repair
    need ceph-mon ceph-mon
    need ceph-osd ceph-osd
    need ceph-common ceph
    need radosgw radosgw radosgw-admin
    # Debian's own Python: one of the user's knows nothing of Debian's modules.
    /usr/bin/python3 -c 'import nbd' 2>/dev/null || want python3-libnbd
    # Debian 12 has nbdfuse in libnbd-bin; later ones in a package of its own.
    if apt-cache show nbdfuse >/dev/null 2>&1; then need nbdfuse nbdfuse; fi
    need libnbd-bin nbdfuse
  fi
  [ -n "$missing" ] || return 0

  as_root=''
  if [ "$(id -u)" != 0 ]; then as_root=sudo; fi
  if ! command -v apt-get >/dev/null 2>&1 ||
    { [ -n "$as_root" ] && ! command -v sudo >/dev/null 2>&1; }; then
    say "Please install these packages (Debian's names), then run this again:$missing"
    exit 1
  fi
  # shellcheck disable=SC2086 # the lists are split into words
  run 'list of Debian packages' $as_root apt-get update &&
    run "Debian packages:$missing" $as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install --yes --no-install-recommends $missing || {
    say "Please install these packages by hand, then run this again:$missing"
    exit 1
  }
}

build() {
  built=dist/main/library.js
  if [ -e "$built" ] &&
    [ -z "$(find src package-lock.json tsconfig*.json -newer "$built" -type f | head -n 1)" ]; then
    return
  fi
  run 'build' npm run --silent build
}

say "Set-up (Node $(node --version))"
check_node
install_npm_packages
install_debian_packages "$@"
[ "${1-}" = verify ] || build
