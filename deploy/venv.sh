# Sourced by deploy/run and tests/run: gives them a virtual environment, .venv.
#
# use_venv LOCK installs what the hash-locked LOCK names, unless a stamp says that it is
# there already. Nothing else may be installed by hand for either command.

# The checksums of the locks that .venv holds now, one a line. Only the last install's:
# an older one's versions are overwritten.
stamps=.venv/posthouse-stamps

say() {
  printf 'posthouse: %s\n' "$*"
}

fail() {
  printf 'posthouse: %s\n' "$*" >&2
  exit 1
}

# The first Python of this machine that will do; prints its name. Root takes one that others
# can run as well, if there is one: the programs run as users of their own.
find_python() {
  local candidate check
  for check in is_for_all true; do
    for candidate in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
      if command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate" && "$check" "$candidate"; then
        printf '%s\n' "$candidate"
        return
      fi
    done
  done
  if command -v python3 >/dev/null 2>&1; then
    fail "Posthouse needs Python 3.11 or newer; python3 here is $(python3 -c 'import platform; print(platform.python_version())'). Install python3.11 or newer beside it."
  fi
  fail "Posthouse needs Python 3.11 or newer and there is no python3 here. Install it: apt-get install python3 python3-pip"
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Whether users other than root can run this Python; without root there are no others.
is_for_all() {
  local program
  program=$("$1" -c 'import os, sys; print(os.path.realpath(sys.executable))') && can_reach "$program"
}

# Whether a file or folder can be reached by users other than root.
can_reach() {
  [ "$(id -u)" != 0 ] || ! command -v setpriv >/dev/null 2>&1 ||
    setpriv --reuid=65534 --regid=65534 --clear-groups test -r "$1"
}

# Root's programs run as users of their own, who can't reach a folder that only root can enter:
# then carries on in a copy.
leave_closed_folder() {
  local app=${POSTHOUSE_APP:-/var/lib/posthouse/app} part
  can_reach "$PWD/manage.py" && return
  export POSTHOUSE_DATA=${POSTHOUSE_DATA:-/var/lib/posthouse/data}
  say "only root can enter $PWD, so Posthouse runs from a copy in $app, with its data in $POSTHOUSE_DATA"
  mkdir -p "$app"
  for part in manage.py panel mailserver deploy requirements.lock; do
    diff -rq --exclude=__pycache__ "$part" "$app/$part" >/dev/null 2>&1 && continue
    rm -rf "${app:?}/$part"
    cp -R "$part" "$app/$part"
    chmod -R go+rX "$app/$part"
  done
  exec "$app/deploy/run" "$@"
}

use_venv() {
  local lock=$1 python
  is_installed "$lock" && return
  python=$(find_python) || exit 1
  # A folder that can't be written shows here, before anything is half made.
  { : >>.venv.lock; } 2>/dev/null ||
    fail "the folder $PWD can't be written. Give this user the right to it, or use a clone of its own."
  exec 9>>.venv.lock
  if command -v flock >/dev/null 2>&1 && ! flock -n 9; then
    say "waiting for another run that installs Python packages here …"
    flock 9
  fi
  if ! is_installed "$lock"; then
    say "installing Python packages (about 30 s the first time) …"
    # From here until the end .venv is neither the old state nor the new one.
    rm -f "$stamps"
    make_venv "$python"
    install_lock "$python" "$lock"
    stamp "$lock"
  fi
  exec 9>&-
}

is_installed() {
  # A .venv whose Python is gone (a newer Debian, another machine) doesn't count.
  [ -x .venv/bin/python ] && grep -qsx "$(checksum "$1")" "$stamps" && has_right_python
}

# Whether .venv's Python is one for all users, or there is none such.
has_right_python() {
  is_for_all .venv/bin/python || ! is_for_all "$(find_python)"
}

checksum() {
  printf '%s %s\n' "$(sha256sum <"$1" | cut -c1-64)" "$(readlink -f .venv/bin/python)"
}

stamp() {
  # The tests' lock holds all of the program's at the same versions, so it serves a start as well.
  local lock=$1
  {
    checksum "$lock"
    if [ "$lock" = requirements-test.lock ]; then checksum requirements.lock; fi
  } >"$stamps.new"
  mv "$stamps.new" "$stamps"
}

make_venv() {
  local python=$1 pip=--without-pip
  [ -x .venv/bin/python ] && is_new_enough .venv/bin/python && has_own_packages && has_right_python && return
  rm -rf .venv
  # Debian has ensurepip only in python3-venv, so pip stays outside and serves .venv from there.
  has_pip "$python" || pip=
  if ! "$python" -m venv $pip .venv >.venv.log 2>&1; then
    rm -rf .venv
    [ -n "$pip" ] || fail "$python has no pip. Install it: apt-get install python3-pip"
    tail -n 5 .venv.log >&2
    fail "no virtual environment could be made in $PWD/.venv; the lines above say why."
  fi
}

# Whether .venv was made for the version that its Python has now.
has_own_packages() {
  .venv/bin/python -c 'import os, sysconfig; os.listdir(sysconfig.get_path("purelib"))' 2>/dev/null
}

has_pip() {
  "$1" -m pip --version >/dev/null 2>&1
}

install_lock() {
  local python=$1 lock=$2 pip
  if has_pip "$python"; then
    pip=("$python" -m pip --python .venv/bin/python)
  elif has_pip .venv/bin/python; then
    pip=(.venv/bin/python -m pip)
  else
    fail "$python has no pip. Install it: apt-get install python3-pip"
  fi
  # PIP_USER: a "user = true" in somebody's pip.conf would refuse the environment.
  if ! PIP_USER=0 "${pip[@]}" install --quiet --disable-pip-version-check --no-input --no-deps \
    --require-hashes -r "$lock" >.venv.log 2>&1; then
    tail -n 15 .venv.log >&2
    fail "the Python packages couldn't be installed; the lines above say why. Is the package index reachable?"
  fi
  rm -f .venv.log
}
