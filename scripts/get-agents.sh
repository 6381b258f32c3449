#!/bin/sh
# Install the real agents that tests run, from npm, into .cache/agents. tests/npm names their versions.
set -eu
cd "$(dirname "$0")/.."
exec scripts/get-npm.sh tests/npm .cache/agents 'tests with real agents'
