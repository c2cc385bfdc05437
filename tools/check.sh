#!/usr/bin/env bash
# Format and lint. `tools/check.sh --fix` mends what can be mended.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/tools/setup_venv.sh"
cd "$root"
if [ "${1:-}" = "--fix" ]; then
  "$venv/bin/ruff" check --fix .
  "$venv/bin/ruff" format .
else
  "$venv/bin/ruff" check .
  "$venv/bin/ruff" format --check .
fi
