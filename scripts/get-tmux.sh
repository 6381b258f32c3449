#!/bin/sh
# Get tmux, and bash, when they are missing; with --for-tests also what tests talk to: Mosquitto, jq, and shells.
# Needs nothing that is there already, and leaves no service running.
set -eu
cd "$(dirname "$0")/.."

packages=

need() { # PROGRAM PACKAGE
    if ! command -v "$1" >/dev/null; then packages="$packages $2"; fi
}

clients=mosquitto-clients
for manager in dnf yum pacman brew; do # these keep the clients in the server's package
    if command -v "$manager" >/dev/null && ! command -v apt-get >/dev/null; then clients=mosquitto; fi
done

need tmux tmux
need bash bash
if [ "${1:-}" = --for-tests ]; then
    # Debian keeps Mosquitto's server where an ordinary user's PATH does not look.
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    need mosquitto mosquitto
    need mosquitto_sub "$clients"
    need jq jq
    need zsh zsh
    need fish fish
fi
if [ -z "$packages" ]; then exit 0; fi

# shellcheck disable=SC2086 # a list of words
scripts/install-packages.sh $packages

# Tests start a Mosquitto of their own; the one that a package starts by itself is not needed.
case $packages in
    *' mosquitto'*)
        as_root=
        if [ "$(id -u)" != 0 ]; then as_root='sudo -n'; fi
        if [ -d /run/systemd/system ]; then
            $as_root systemctl --quiet disable --now mosquitto || true
        elif command -v service >/dev/null && command -v apt-get >/dev/null; then
            $as_root service mosquitto stop >/dev/null || true
        fi
        ;;
esac
