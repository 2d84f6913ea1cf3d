#!/bin/sh
# Make the virtualenv: bootstrap.sh PYTHON FOLDER. The only thing that runs before there is one.
# Root on Debian or Ubuntu gets the missing system packages; anyone else is told which.
set -eu
python=$1
venv=$2

fail() {
  printf 'error: %s\n' "$@" >&2
  exit 2
}

# git: the BERT source is a Git repository. ensurepip: Debian has it in python3-venv.
missing=
command -v "$python" >/dev/null 2>&1 || missing="$missing python3"
command -v git >/dev/null 2>&1 || missing="$missing git"
"$python" -c 'import ensurepip' >/dev/null 2>&1 || missing="$missing python3-venv"
if [ -n "$missing" ]; then
  if [ "$(id -u)" = 0 ] && [ "$python" = python3 ] && [ -f /etc/debian_version ]; then
    printf 'virtualenv: installing%s with apt-get, as root\n' "$missing" >&2
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # a list of names
    apt-get install -y -q --no-install-recommends $missing >/dev/null
  else
    fail "these are missing:$missing" \
      "install them (Debian and Ubuntu: apt-get install$missing), or name another Python: make PYTHON=python3.12 all"
  fi
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail \
  "bertir needs Python 3.11 or newer, and $python is $("$python" -c 'import platform; print(platform.python_version())')" \
  "name a newer one: make PYTHON=python3.12 all"

printf 'virtualenv: making %s with %s\n' "$venv" "$python" >&2
"$python" -m venv "$venv"
