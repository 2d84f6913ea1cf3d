#!/bin/sh
# Make the virtualenv hold what a lock says: bootstrap.sh PYTHON FOLDER build|dev. The only thing that runs before there
# is one. Nothing is done if it was made by this Python from these locks; else it is made anew.
# Root on Debian or Ubuntu gets the missing system packages; anyone else is told which.
set -eu
python=$1
venv=$2
kind=$3

say() {
  printf 'virtualenv: %s\n' "$1" >&2
}

fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  printf '%s\n' "$@" >&2
  exit 2
}

# What a virtualenv depends on, as one digest: the interpreter, this folder, and the lock files named.
fingerprint() {
  "$python" - "$@" <<'EOF'
import hashlib, os, sys
facts = [sys.version, os.path.realpath(sys.executable), os.getcwd()]
facts += [hashlib.sha256(open(name, "rb").read()).hexdigest() for name in sys.argv[1:]]
print(hashlib.sha256(repr(facts).encode()).hexdigest())
EOF
}

install() {
  "$venv/bin/python" -m pip --disable-pip-version-check install --quiet --quiet "$@"
}

# bertir's job image has a virtualenv of this lock's wheels (docker/job.toml), whose Python this is: there is nothing to
# install, and no index to ask.
if [ "$kind" = build ] && there=$(command -v "$python") && there=${there%/bin/*} &&
  [ -f "$there/build.lock.digest" ]; then
  if [ "$(cat "$there/build.lock.digest")" = "$(sed -n '2s/^# Digest of what follows: //p' requirements/build.lock)" ]; then
    if [ "$(readlink "$venv")" != "$there" ]; then
      say "$there has what bertir needs; $venv leads there"
      rm -rf "$venv"
      ln -s "$there" "$venv"
    fi
    exit 0
  fi
  fail "this job image was made for another checkout: $there holds other packages than requirements/build.lock pins" \
    "Take the image of this one, by its own docker/job.lock: invoke image --job"
fi

# git: the BERT source is a Git repository. ensurepip: Debian has it in python3-venv.
missing=
command -v "$python" >/dev/null 2>&1 || missing="$missing python3"
command -v git >/dev/null 2>&1 || missing="$missing git"
"$python" -c 'import ensurepip' >/dev/null 2>&1 || missing="$missing python3-venv"
if [ -n "$missing" ]; then
  if [ "$(id -u)" = 0 ] && [ "$python" = python3 ] && [ -f /etc/debian_version ] &&
    command -v apt-get >/dev/null 2>&1; then
    say "installing$missing with apt-get, as root"
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # a list of names
    apt-get install -y -q --no-install-recommends $missing >/dev/null
  else
    fail "these are missing:$missing" \
      "Install them (Debian and Ubuntu: apt-get install$missing), or name another Python: make PYTHON=python3.12 all"
  fi
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail \
  "bertir needs Python 3.11 or newer, and $python is $("$python" -c 'import platform; print(platform.python_version())')" \
  "Name a newer one: make PYTHON=python3.12 all"

build=$(fingerprint pyproject.toml requirements/build.lock)
dev=$(fingerprint pyproject.toml requirements/build.lock requirements/dev.lock)
if [ ! -f "$venv/build.stamp" ] || [ "$(cat "$venv/build.stamp")" != "$build" ] ||
  { [ -f "$venv/dev.stamp" ] && [ "$(cat "$venv/dev.stamp")" != "$dev" ]; }; then
  say "making $venv with $python, and installing what bertir needs, by hash"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  install --require-hashes --only-binary :all: -r requirements/build.lock
  install --no-deps --no-build-isolation --editable .
  # Where Python is told to write no bytecode (PYTHONDONTWRITEBYTECODE), each task would compile all that it imports.
  "$venv/bin/python" -m compileall -q src tasks.py >&2 || say "could not compile bertir's own modules beforehand"
  printf '%s\n' "$build" >"$venv/build.stamp"
fi
if [ "$kind" = dev ] && [ ! -f "$venv/dev.stamp" ]; then
  say "installing what the tests need, by hash"
  install --require-hashes --only-binary :all: -r requirements/dev.lock
  printf '%s\n' "$dev" >"$venv/dev.stamp"
fi
