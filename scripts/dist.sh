#!/bin/sh
# Build the wheel and the source archive in dist/, with the build system that pyproject.toml names.
set -eu
cd "$(dirname "$0")/.."
scripts/bootstrap.sh --dev
.venv/bin/python -c 'import tomllib
for line in tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"]: print(line)' >.venv/build.txt
.venv/bin/python -m pip install -qq --disable-pip-version-check --requirement .venv/build.txt
.venv/bin/python -m hatchling build
