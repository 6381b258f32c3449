#!/bin/sh
# Run the demo of examples/, after getting what it needs.
set -eu
cd "$(dirname "$0")/.."
scripts/get-tmux.sh
scripts/bootstrap.sh
exec .venv/bin/python examples/demo.py
