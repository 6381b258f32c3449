#!/bin/sh
# Get a Chromium for the test that looks at a report, where that is one package (Debian). Never fails: without
# one that test is skipped, and says so.
set -u
cd "$(dirname "$0")/.."

for candidate in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$candidate" >/dev/null; then exit 0; fi
done
# Elsewhere the package is missing or only fetches another kind of package.
if ! grep -qx 'ID=debian' /etc/os-release 2>/dev/null; then exit 0; fi
scripts/install-packages.sh chromium || true
