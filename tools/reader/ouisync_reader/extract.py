"""Writes the tree of a store into a directory."""

import os

from .commits import ROOT
from .errors import Refused


class Extraction:
    """Counts what it wrote, and collects what could not be written."""

    def __init__(self, store):
        self.store, self.files, self.bytes, self.conflicts, self.failed = store, 0, 0, [], []

    def into(self, target):
        """`target` must not exist, or be an empty directory."""
        os.makedirs(target, exist_ok=True)
        if os.listdir(target):
            raise Refused(f"{target} is not empty")
        handle = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._directory([ROOT], handle, b"")
        finally:
            os.close(handle)

    def _directory(self, nodes, handle, path):
        for entry in self.store.tree.listing(nodes, self.store.label):
            inside = path + b"/" + entry.name if path else entry.name
            if entry.name != entry.given:
                self.conflicts.append(inside)
            try:
                if entry.is_directory():
                    os.mkdir(entry.name, 0o755, dir_fd=handle)
                    child = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
                    try:
                        self._directory(entry.nodes, child, inside)
                    finally:
                        os.close(child)
                else:
                    self._leaf(entry, handle)
                if entry.modified:
                    seconds, nanoseconds = entry.modified
                    time = seconds * 1_000_000_000 + nanoseconds
                    os.utime(entry.name, ns=(time, time), dir_fd=handle, follow_symlinks=False)
            except (Refused, OSError, OverflowError) as reason:
                self.failed.append(f"{inside.decode(errors='backslashreplace')}: {reason}")

    def _leaf(self, entry, handle):
        kind, value = entry.value.value
        if kind == "symlink":
            os.symlink(value, entry.name, dir_fd=handle)
            return
        partial = os.open(entry.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=handle)
        try:
            with os.fdopen(partial, "wb", closefd=False) as file:
                for part in self.store.packs.read(value):
                    file.write(part)
            os.fchmod(partial, 0o755 if entry.executable else 0o644)
        except Refused:
            os.unlink(entry.name, dir_fd=handle)
            raise
        finally:
            os.close(partial)
        self.files += 1
        self.bytes += value.size
