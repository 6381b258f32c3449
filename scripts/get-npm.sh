#!/bin/sh
# Install what a package.json and its lock name, from npm: get-npm.sh SOURCE TARGET WHAT.
# Does nothing when that was done for these versions. Gets npm itself in CI alone.
set -eu
cd "$(dirname "$0")/.."
source=$1
target=$2
what=$3
seconds=300

# The tests themselves say it again: skipped at home, failed in CI.
give_up() {
    printf 'warning: %s; %s cannot run\nhint: %s\n' "$1" "$what" "$2" >&2
    exit 0
}

state() {
    cat "$source/package.json" "$source/package-lock.json" | cksum
    uname -sm
}

if [ "$(cat "$target/installed" 2>/dev/null)" = "$(state)" ]; then exit 0; fi
if [ "${CI:-}" = true ] && ! command -v npm >/dev/null; then
    scripts/install-packages.sh nodejs npm || true
fi
command -v npm >/dev/null || give_up 'npm is not on PATH' 'install Node.js 20 or newer, with npm'

rm -rf "$target"
mkdir -p "$target"
cp "$source/package.json" "$source/package-lock.json" "$target"
echo "Installing from npm, for $what, into $target ..."
bounded=
if command -v timeout >/dev/null; then bounded="timeout $seconds"; fi
# Not `npm ci`: it refuses a lock file that leaves out packages for other systems, which not each registry has.
# shellcheck disable=SC2086 # a list of words
if ! log=$($bounded npm install --prefix "$target" --no-audit --no-fund --fetch-timeout=60000 --fetch-retries=2 2>&1); then
    printf '%s\n' "$log" >&2
    rm -rf "$target"
    give_up "npm could not install it within $seconds s" 'see above; the next run tries again'
fi
state >"$target/installed"
