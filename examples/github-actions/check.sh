#!/usr/bin/env bash
# Says whether HISTORY.md is what task.md asks for: it computes it by itself, and compares.
set -euo pipefail

if ! [ -f HISTORY.md ]; then
    echo 'fault: there is no HISTORY.md'
    exit 1
fi
diff <(git log -5 --format='- %h %s') HISTORY.md || {
    echo 'fault: HISTORY.md is not the history; < is what it should be'
    exit 1
}
