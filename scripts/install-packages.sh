#!/bin/sh
# Install system packages with the system's own package manager, and say so first.
# Without the rights to do it, say what to run and fail. Names are the same everywhere: see get-tmux.sh.
set -eu

find_manager() {
    for candidate in apt-get dnf yum apk pacman zypper brew; do
        if command -v "$candidate" >/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

manager=$(find_manager)
case $manager in
    apt-get) install="apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $*" ;;
    dnf | yum) install="$manager install -y $*" ;;
    apk) install="apk add $*" ;;
    pacman) install="pacman -Sy --noconfirm --needed $*" ;;
    zypper) install="zypper --non-interactive install $*" ;;
    brew) install="brew install $*" ;;
    *)
        printf 'error: missing: %s\nhint: install it; no package manager that is known here was found\n' "$*" >&2
        exit 1
        ;;
esac

# Homebrew refuses root and needs none.
if [ "$manager" = brew ] || [ "$(id -u)" = 0 ]; then
    set -- sh -c "$install"
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    set -- sudo sh -c "$install"
else
    printf 'error: missing: %s\nhint: installing needs root; run this, then try again:\n    sudo sh -c "%s"\n' "$*" "$install" >&2
    exit 1
fi
echo "Missing: installing with: $install"
if ! log=$("$@" 2>&1); then
    printf '%s\nerror: installing failed\n' "$log" >&2
    exit 1
fi
