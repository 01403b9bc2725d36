# shellcheck shell=bash
# Sourced by the scripts beside it: sets `root` and puts shardmig and its tools first on PATH.
# `extras`, if set before, are the optional dependencies that are needed.
# Makes .venv from uv.lock on first use and again when uv.lock or pyproject.toml has changed; otherwise costs nothing.
# Packages come from where pip and uv of this machine are told to get them. Needs Python 3.11, 3.12 or 3.13.

root="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"

find_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        if "$candidate" -c 'import sys, venv; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "shardmig needs Python 3.11, 3.12 or 3.13 with the module venv, and none is on PATH." >&2
    return 1
}

find_uv() {
    if [ ! -x "$root/.venv/bin/uv" ] && uv --version >/dev/null 2>&1; then
        command -v uv
        return
    fi
    if [ ! -x "$root/.venv/bin/uv" ]; then
        "$1" -m venv "$root/.venv" || {
            echo "Could not make a virtual environment; on Debian: apt-get install python3-venv" >&2
            return 1
        }
        "$root/.venv/bin/python" -m pip install --quiet uv >&2
    fi
    echo "$root/.venv/bin/uv"
}

make_environment() {
    local extras="${extras:-mlflow neptune postgres}" python uv extra
    local stamp="$root/.venv/.made-from-lock.${extras// /-}" flags=()
    if [ "$stamp" -nt "$root/uv.lock" ] && [ "$stamp" -nt "$root/pyproject.toml" ]; then
        return
    fi
    for extra in $extras; do flags+=(--extra "$extra"); done
    python="$root/.venv/bin/python"
    [ -x "$python" ] || python="$(find_python)"
    uv="$(find_uv "$python")"
    # Its own, as soon as there is one: for a Python by another path (a shim of pyenv) uv makes the environment anew, and
    # the uv inside is gone.
    [ ! -x "$root/.venv/bin/python" ] || python="$root/.venv/bin/python"
    # --inexact: what somebody has added to the environment stays.
    (cd "$root" && UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT="$root/.venv" VIRTUAL_ENV='' \
        "$uv" sync --quiet --frozen --inexact --python "$python" "${flags[@]}") >&2 &&
        touch "$stamp"
}

make_environment
export PATH="$root/.venv/bin:$PATH"
