#!/bin/sh
# `npm run verify`: from a bare clone to a verdict. Sets up, runs all checks and tests on the Node
# that is installed, then the tests once more on a current Node, from the npm package `node`: those
# of our own code, without the real clients and servers that have met it already.
set -eu
cd "$(dirname "$0")/.."
# sfdisk, mke2fs and e2fsck live where a user's PATH may not look.
export PATH="$PATH:/usr/sbin:/sbin"

CURRENT_NODE=26.10.0
start=$(date +%s)
failed=''

say() { printf '%s\n' "$*"; }

sh tools/setup.sh verify

say ''
say "Check on the installed Node, $(node --version)"
npm run --silent check || failed="$failed check-on-$(node --version)"

say ''
say "Tests on a current Node, v$CURRENT_NODE"
npx --yes --loglevel=error --package="node@$CURRENT_NODE" -- \
  node --import=tsx tools/test.ts src/ sim/ || failed="$failed tests-on-v$CURRENT_NODE"

seconds=$(($(date +%s) - start))
say ''
if [ -n "$failed" ]; then
  say "verify FAILED:$failed ($seconds s)"
  exit 1
fi
say "verify passed ($seconds s)"
