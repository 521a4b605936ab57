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

# Only where Rust comes by rustup can the lint tools be missing.
if command -v rustup >/dev/null 2>&1; then
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
        rustup component add rustfmt clippy >/dev/null
fi
