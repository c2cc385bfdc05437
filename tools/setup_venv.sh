# Makes a venv with the package in it, once and again after setup.py changes, and sets $venv. Sourced, with one word:
# `newest` makes .venv; `lowest` makes .venv-lowest, with every dependency at the lower bound that setup.py gives.

case "$1" in
  newest) venv="$root/.venv" ;;
  lowest) venv="$root/.venv-lowest" ;;
  *) echo "setup_venv.sh takes newest or lowest, not '$1'." >&2; exit 2 ;;
esac

candidates=(python3 python3.13 python3.12 python3.11)
if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
python=""
for candidate in "${candidates[@]}"; do
  if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    python="$candidate"
    break
  fi
done
if [ -z "$python" ]; then
  echo "tf_lottery needs Python 3.11 to 3.13. Install one, or name it: PYTHON=/path/to/python3.11 $0" >&2
  exit 1
fi

stamp="$venv/.installed"
wanted="$(cat "$root/setup.py" "$root/pyproject.toml" | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing tf_lottery into $venv (a minute or two) ..."
  rm -rf "$venv"
  "$python" -m venv "$venv"
  install() {
    # setuptools warns of every editable installation.
    PYTHONWARNINGS="ignore:Editable installation" \
      "$venv/bin/python" -m pip --quiet --disable-pip-version-check --log "$venv/pip.log" \
      install --progress-bar off "$@" && return
    echo "pip could not install tf_lottery. The reason is in $venv/pip.log, before its last error." >&2
    exit 1
  }
  install --upgrade pip
  if [ "$1" = "lowest" ]; then
    install --no-deps packaging --editable "$root"
    "$venv/bin/python" "$root/tools/lowest.py" > "$venv/lowest.txt"
    install --constraint "$venv/lowest.txt" --editable "$root[test]"
  else
    install --editable "$root[test]"
  fi
  echo "$wanted" > "$stamp"
fi
