"""The tree and how it merges: docs/format/tree.md. The whole set of operations is taken at once; nothing is kept between runs."""

from datetime import datetime, timezone
from unicodedata import category

from .commits import ROOT, is_directory

FORBIDDEN = set('/\\:*?"<>|') | {
    chr(code) for first, last in ((0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x2069), (0xFEFF, 0xFEFF)) for code in range(first, last + 1)
}
# The characters with the Unicode property White_Space; Python's own idea of white space has a few more.
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
LAST_SECOND = 253402300799


class Value:
    """A live value of a leaf and where it comes from."""

    def __init__(self, stamp, author, time, value):
        self.stamp, self.author, self.time, self.value = stamp, author, time, value

    def identity(self):
        return self.value if self.value[0] == "symlink" else self.value[1].identity()


def later(register, node, entry):
    """Keeps the entry of the greater stamp."""
    if node not in register or register[node][0] < entry[0]:
        register[node] = entry


class Shown:
    """An entry of a listing."""

    def __init__(self, nodes, given, value=None):
        self.nodes, self.given, self.name, self.value = nodes, given, given, value
        self.executable = self.modified = None

    def is_directory(self):
        return self.value is None


class Tree:
    def __init__(self, commits, state=None):
        """`commits`: (lamport, id, author, body) of every commit that counts, beyond those in a checkpoint's `state` if one is given."""
        self.place, self.content = {}, {}  # node -> (stamp, parent, name), {operation: value}
        self.executable, self.modified = {}, {}  # node -> (stamp, value)
        self.placements, self.replaced = [], set()  # of directories: (stamp, node, parent, name); (node, operation)
        if state is not None:
            self._begin(state)
        self._registers(sorted(commits, key=lambda commit: commit[:2]))
        for node, operation in self.replaced:
            self.content.get(node, {}).pop(operation, None)
        for _, node, parent, name in sorted(self.placements):
            self._place_directory(node, parent, name)
        self._existence()

    def _begin(self, state):
        self.placements += state.placements
        self.place, self.executable, self.modified = state.leaves, state.executable, state.modified
        self.replaced |= state.replaced
        for node, operation, stamp, author, time, value in state.values:
            self.content.setdefault(node, {})[operation] = Value(stamp, author, time, value)

    def _registers(self, commits):
        for lamport, commit, author, body in commits:
            for index, (kind, node, *fields) in enumerate(body.operations):
                stamp = lamport, commit, index
                if node == ROOT:
                    continue
                if kind == "place":
                    if is_directory(node):
                        self.placements.append((stamp, node, *fields))
                    elif is_directory(fields[0]):
                        later(self.place, node, (stamp, *fields))
                elif kind == "metadata":
                    for register, value in zip((self.executable, self.modified), fields):
                        if value is not None:
                            later(register, node, (stamp, value))
                elif is_directory(node) == (fields[0][0] in ("file", "symlink")) and fields[0][0] != "deleted":
                    continue
                else:
                    value, replaces = fields
                    self.content.setdefault(node, {})[commit, index] = Value(stamp, author, body.time, value)
                    self.replaced.update((node, operation) for operation in replaces)

    def _place_directory(self, node, parent, name):
        """Placements come here by ascending stamp, so what a move must not do is known at once."""
        if node == ROOT or not is_directory(parent):
            return
        above = parent
        while above != node and above in self.place:
            above = self.place[above][1]
        if above != node:
            self.place[node] = None, parent, name

    def live(self, node):
        return [value for value in self.content.get(node, {}).values() if value.value[0] != "deleted"]

    def _existence(self):
        self.existing = set()
        for node in self.content:
            if not self.live(node):
                continue
            while node not in self.existing:
                self.existing.add(node)
                if node not in self.place:
                    break
                node = self.place[node][1]
        self.children = {}
        for node in self.existing:
            if node in self.place:
                _, parent, name = self.place[node]
                self.children.setdefault(parent, {}).setdefault(name, []).append(node)

    def listing(self, directories, label):
        """The entries of a visible directory, given all its nodes. `label(author)` is the name of a member or `None`."""
        by_name = {}
        for directory in directories:
            for name, nodes in self.children.get(directory, {}).items():
                by_name.setdefault(name, []).extend(nodes)
        entries, later = [], []
        for name in sorted(by_name):
            first, *others = self._of_name(name, by_name[name])
            entries.append(first)
            later += others
        taken = set(by_name)
        for entry in later:  # by ascending given name, and stamp within it
            entry.name = derived_name(entry, label(entry.value.author), taken)
            taken.add(entry.name)
        return entries + later

    def _of_name(self, name, nodes):
        """The entries of one given name: first the one that keeps it, then the others by ascending stamp."""
        groups = {}
        for node in nodes:
            if not is_directory(node):
                for value in self.live(node):
                    groups.setdefault(value.identity(), []).append((value, node))
        shown = []
        for members in groups.values():
            value = max((value for value, _ in members), key=lambda value: value.stamp)
            shown.append(Shown(sorted({node for _, node in members}), name, value))
        shown.sort(key=lambda entry: entry.value.stamp)
        directories = sorted(node for node in nodes if is_directory(node))
        if directories:
            shown.insert(0, Shown(directories, name))
        elif shown:
            shown.insert(0, shown.pop())
        for entry in shown:
            entry.executable = newest(self.executable, entry.nodes)
            entry.modified = newest(self.modified, entry.nodes)
        return shown


def newest(register, nodes):
    """The value with the greatest stamp that any of the nodes has; `None` without any."""
    return max((register[node] for node in nodes if node in register), default=(None, None))[1]


def derived_name(entry, label, taken):
    name = entry.given
    dot = name.rfind(b".")
    if dot < 1 or len(name) - dot > 64:
        dot = len(name)
    stem, extension = name[:dot], name[dot:]
    seconds = min(max(entry.value.time[0], 0), LAST_SECOND)
    date = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")
    label = clean_label(label) or entry.value.author.hex()[:8]
    commit = entry.value.stamp[1].hex()[:8]
    number = 0
    while True:
        mark = label + ("" if number == 0 else f" {commit}" if number == 1 else f" {commit} {number}")
        behind = f" (conflict {date} {mark})".encode() + extension
        candidate = cut(stem, 255 - len(behind)) + behind
        if candidate not in taken:
            return candidate
        number += 1


def clean_label(label):
    replaced = "".join("_" if category(char) == "Cc" or char in FORBIDDEN else char for char in (label or "").strip(WHITE_SPACE))
    return cut(replaced.encode(), 64).decode().strip(WHITE_SPACE)


def cut(text, length):
    """The first bytes, not cut within a UTF-8 character."""
    if len(text) <= length:
        return text
    for end in range(length, max(length - 4, -1), -1):
        if text[end] & 0xC0 != 0x80:
            return text[:end]
    return text[:length]
