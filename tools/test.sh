#!/usr/bin/env bash
# The checks, then the tests. Arguments go to pytest.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/tools/setup_venv.sh"
cd "$root"
tools/check.sh
exec "$venv/bin/python" -m pytest "$@"
