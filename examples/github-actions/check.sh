#!/usr/bin/env bash
# Says whether HISTORY.md is what task.md asks for: it computes it by itself, and compares.
set -euo pipefail

# shellcheck disable=SC2016 # the backticks are Markdown's
expected=$(printf '# History\n\n' && git log -5 --format='- `%h` %s')
if ! [ -f HISTORY.md ]; then
    echo 'fault: there is no HISTORY.md'
    exit 1
fi
diff <(printf '%s\n' "$expected") HISTORY.md || {
    echo 'fault: HISTORY.md is not the history; < is what it should be'
    exit 1
}
