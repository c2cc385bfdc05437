#!/usr/bin/env bash
# The checks, then the tests, on all cores. Arguments go to pytest.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/tools/setup_venv.sh"
cd "$root"
tools/check.sh
# One thread for each process: TensorFlow's would wait for one another.
export TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
exec "$venv/bin/python" -m pytest -n auto --dist worksteal "$@"
