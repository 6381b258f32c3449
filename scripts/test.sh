#!/bin/sh
# Run the test suite, after getting what it needs. Options go to pytest.
set -eu
cd "$(dirname "$0")/.."
scripts/get-tmux.sh --for-tests
scripts/bootstrap.sh --dev
scripts/get-agents.sh
if [ "${CI:-}" = true ]; then scripts/get-chromium.sh; fi
scripts/get-npm.sh examples/clients .cache/clients 'tests of the clients in Node'
# Mosquitto's server lies where ordinary users' PATH does not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
# Most tests wait more than they work: two of them for each core.
workers=$(($(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) * 2))
exec .venv/bin/pytest -n "${TEST_WORKERS:-$workers}" --dist worksteal "$@"
