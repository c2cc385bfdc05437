#!/usr/bin/env bash
# Format, lint, and known vulnerabilities of what is installed. `--fix` mends what can be mended; `--lowest` uses
# the venv of `tools/test.sh --lowest`.
set -euo pipefail
versions=newest fix=""
for flag in "$@"; do
  case "$flag" in
    --fix) fix=yes ;;
    --newest | --lowest) versions="${flag#--}" ;;
    *) echo "tools/check.sh takes --fix, --newest (the default) and --lowest, not $flag." >&2; exit 2 ;;
  esac
done
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/tools/setup_venv.sh" "$versions"
cd "$root"
if [ -n "$fix" ]; then
  "$venv/bin/ruff" check --fix .
  "$venv/bin/ruff" format .
else
  "$venv/bin/ruff" check .
  "$venv/bin/ruff" format --check .
  if [ "$versions" = "lowest" ]; then
    echo "pip-audit: skipped, since old versions are installed here on purpose."
  else
    "$venv/bin/python" tools/audit.py
  fi
fi
