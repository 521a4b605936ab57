"""The command: `python -m ouisync_reader STORE TARGET --kit FILE`."""

import argparse
import getpass
import sys
from pathlib import Path

from .errors import Refused
from .extract import Extraction
from .home import from_home, from_kit
from .store import Store


def arguments():
    parser = argparse.ArgumentParser(
        prog="ouisync_reader",
        description="Extracts every file of an OuiSync folder from its encrypted store, without OuiSync.",
        epilog="The store is HOME/folders/XXXX, of a device or of a safe. Stop the device first, or work on a copy. Exit code: "
        "0 all extracted, 1 nothing or not all could be, 2 wrong use.",
    )
    parser.add_argument("store", help="a folder's store (the directory with `packs` and `catalogue`)")
    parser.add_argument("target", help="a directory to write into: new, or empty")
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument("--kit", metavar="FILE", help="the folder's recovery kit")
    key.add_argument("--home", metavar="DIR", help="the home of a device that reads the folder")
    parser.add_argument("--passphrase-file", metavar="FILE", help="the home's passphrase in a file; else it is asked for")
    return parser.parse_args()


def secrets_of(options):
    if options.kit:
        return from_kit(options.kit)

    def passphrase():
        if options.passphrase_file:
            return Path(options.passphrase_file).read_text("utf-8").rstrip("\n")
        return getpass.getpass("Passphrase: ")

    wanted = Path(options.store).resolve().name
    for found in from_home(options.home, passphrase):
        if found.folder.hex().startswith(wanted):
            return found
    raise Refused("that home has no reading secrets for this store")


def main():
    options = arguments()
    try:
        store = Store(options.store, secrets_of(options))
        extraction = Extraction(store)
        extraction.into(options.target)
    except (Refused, OSError) as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    for note in store.notes:
        print(f"note: {note}", file=sys.stderr)
    for conflict in extraction.conflicts:
        print(f"conflict: {conflict.decode(errors='backslashreplace')}")
    problems = store.missing + extraction.failed
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(
        f"{extraction.files} files, {extraction.bytes} bytes, from {len(store.accepted)} commits"
        f" ({len(store.quarantined)} more in quarantine)"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
