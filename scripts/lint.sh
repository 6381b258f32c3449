#!/bin/sh
# Check style (ruff) and types (mypy), after getting both.
set -eu
cd "$(dirname "$0")/.."
scripts/bootstrap.sh --dev
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
