# Sourced by deploy/run and tests/run: gives them a virtual environment, .venv.
#
# use_venv LOCK installs what the hash-locked LOCK names, unless a stamp says that it is
# there already. Nothing else may be installed by hand for either command.

fail() {
  printf 'posthouse: %s\n' "$*" >&2
  exit 1
}

# The newest Python of this machine that will do; prints its name.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  if command -v python3 >/dev/null 2>&1; then
    fail "Python 3.11 or newer is needed; python3 here is $(python3 -c 'import platform; print(platform.python_version())'). Install python3.11."
  fi
  fail "Python 3.11 or newer is needed and there is no python3. Install it: apt-get install python3 python3-pip"
}

use_venv() {
  local lock=$1 sum stamps=.venv/posthouse-stamps python
  sum=$(sha256sum "$lock" | cut -c1-64)
  # The tests' lock holds all of the program's, at the same versions: either stamp serves a start.
  grep -qsx "$sum" "$stamps" && return
  python=$(find_python) || exit 1
  # A folder that can't be written shows here, before anything is half made.
  { : >.venv.lock; } 2>/dev/null || fail "the folder $PWD can't be written. Give this user the right to it, or use a clone of its own."
  exec 9>.venv.lock
  command -v flock >/dev/null 2>&1 && flock 9
  if ! grep -qsx "$sum" "$stamps"; then
    printf 'posthouse: installing Python packages from %s (about 30 s) …\n' "$lock"
    make_venv "$python"
    install_lock "$python" "$lock"
    printf '%s\n' "$sum" >>"$stamps"
    if [ "$lock" = requirements-test.lock ]; then sha256sum requirements.lock | cut -c1-64 >>"$stamps"; fi
  fi
  exec 9>&-
}

make_venv() {
  [ -x .venv/bin/python ] && .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
  rm -rf .venv
  # Without pip inside: Debian has ensurepip only in python3-venv, and an outer pip can serve it.
  "$1" -m venv --without-pip .venv >.venv.log 2>&1 || { tail -n 5 .venv.log >&2; fail "no virtual environment could be made in $PWD/.venv."; }
}

install_lock() {
  "$1" -m pip --version >/dev/null 2>&1 || fail "$1 has no pip. Install it: apt-get install python3-pip"
  if ! "$1" -m pip --python .venv/bin/python install --quiet --disable-pip-version-check --no-input --no-deps \
    --require-hashes -r "$2" >.venv.log 2>&1; then
    tail -n 15 .venv.log >&2
    fail "the Python packages couldn't be installed; the lines above say why. Is the package index reachable?"
  fi
  rm -f .venv.log
}
