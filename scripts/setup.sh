#!/bin/sh
# Installs what the tests and the bench need beside Rust; does nothing when all is there. Without root it says what to install.
set -eu

missing=""
need() { # program package
    command -v "$1" >/dev/null 2>&1 || case " $missing " in *" $2 "*) ;; *) missing="$missing $2" ;; esac
}
PATH="$PATH:/usr/sbin:/sbin"
need cc gcc
need ip iproute2
need tcpdump tcpdump
need rsync rsync
need syncthing syncthing
need dbus-daemon dbus
need dbus-send dbus
need gnome-keyring-daemon gnome-keyring
need python3 python3
python3 -c "import ensurepip, venv" 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        log=$(mktemp)
        if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
            cat "$log" >&2
            echo "setup: installing$missing failed; tests that need them will say so" >&2
        fi
        rm -f "$log"
    else
        echo "setup: please install:$missing (tests that need them are skipped and say so)" >&2
    fi
fi

# The independent reader of the format, with the versions that its test is run with.
reader=tools/reader/.venv
if command -v python3 >/dev/null 2>&1 && ! "$reader/bin/python" -c 'import blake3, cryptography, lz4, zstandard' >/dev/null 2>&1; then
    log=$(mktemp)
    if ! { python3 -m venv "$reader" && "$reader/bin/pip" install -q -r tools/reader/requirements.txt; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        echo "setup: the reader's Python packages could not be installed; its test says so" >&2
    fi
    rm -f "$log"
fi

# Only where Rust comes by rustup can the lint tools be missing.
if command -v rustup >/dev/null 2>&1; then
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
        rustup component add rustfmt clippy >/dev/null
fi
