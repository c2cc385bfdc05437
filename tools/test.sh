#!/usr/bin/env bash
# The checks, then the tests, on all cores. With `--lowest`, every dependency is at its lower bound of setup.py.
# Other arguments go to pytest.
set -euo pipefail
versions=newest
for argument in "$@"; do
  shift
  if [ "$argument" = "--lowest" ]; then versions=lowest; else set -- "$@" "$argument"; fi
done
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/tools/setup_venv.sh" "$versions"
cd "$root"
tools/check.sh "--$versions"
# One thread for each process: TensorFlow's would wait for one another.
export TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
exec "$venv/bin/python" -m pytest -n auto --dist worksteal "$@"
