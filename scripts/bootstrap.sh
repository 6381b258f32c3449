#!/bin/sh
# Make .venv with delegate-job in it (editable); with --dev also the tools that tests and checks need.
# Does nothing when that was done for this pyproject.toml. Not for tmux: see get-tmux.sh.
set -eu
cd "$(dirname "$0")/.."
stamp=.venv/installed${1:-}

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
        # A version manager's shim may be there without the Python behind it, so each is tried.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail 'no Python 3.11 or newer was found' 'install one, or name it: make PYTHON=/path/to/python3.12 ...'
}

# Debian and Ubuntu leave ensurepip, which venv needs, to a package of its own.
get_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    version=$("$1" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    command -v apt-get >/dev/null || fail "$1 cannot make virtual environments" "install its venv and ensurepip modules"
    scripts/install-packages.sh "$version-venv"
}

state() {
    cksum <pyproject.toml
    pwd -P # a virtual environment holds absolute paths: a moved clone needs a new one
}

if [ "$(cat "$stamp" 2>/dev/null)" = "$(state)" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi
if [ "$(tail -n 1 .venv/place 2>/dev/null)" != "$(pwd -P)" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    python=$(find_python)
    get_venv "$python"
    echo "Making .venv with $("$python" --version) ..."
    "$python" -m venv --clear .venv
    pwd -P >.venv/place
fi
echo 'Installing delegate-job and what it needs into .venv ...'
set -- ${1:+--dev}
{
    echo '-e .'
    if [ "${1:-}" = --dev ]; then # read here, because only pip 25.1 and later know dependency groups
        .venv/bin/python -c 'import tomllib
for line in tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"]: print(line)'
    fi
} >.venv/requirements.txt
.venv/bin/python -m pip install -qq --disable-pip-version-check --requirement .venv/requirements.txt
state >"$stamp"
# What --dev installs holds all that the plain way does.
if [ "${1:-}" = --dev ]; then state >.venv/installed; fi
