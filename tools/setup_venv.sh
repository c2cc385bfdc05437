# Makes .venv with the package in it, once and again after setup.py changes. Sourced.

python="${PYTHON:-}"
if [ -z "$python" ]; then
  for candidate in python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      python="$candidate"
      break
    fi
  done
fi
if [ -z "$python" ]; then
  echo "tf_lottery needs Python 3.11 to 3.13. Install one, or name it: PYTHON=/path/to/python3.11 $0" >&2
  exit 1
fi

venv="$root/.venv"
stamp="$venv/.installed"
wanted="$(cat "$root/setup.py" "$root/pyproject.toml" | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing tf_lottery into $venv (a minute or two) ..."
  rm -rf "$venv"
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root[test]"
  echo "$wanted" > "$stamp"
fi
