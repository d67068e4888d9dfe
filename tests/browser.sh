#!/usr/bin/env bash
# Provide the browser in which tests open pages: one that is here, else the system's package, else Playwright's own.
# PLAYWRIGHT names that command. Set CHROMIUM to use a browser from elsewhere.
set -euo pipefail
playwright=${1:-playwright}

for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$name" ] && command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends chromium >/dev/null
else
    "$playwright" install chromium
fi
