#!/usr/bin/env bash
# The default experiment: winning tickets on handwritten digits. Flags are those of `tf-lottery run`.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/tools/setup_venv.sh" newest
exec "$venv/bin/tf-lottery" run "$@"
