"""A folder's store: docs/format/store.md. What counts in it, decrypted."""

from pathlib import Path

from .catalogue import Catalogue
from .commits import parse_commit
from .errors import Refused
from .keys import derive
from .packs import Packs
from .roster import Roster
from .tree import Tree


class Store:
    """`notes` are things worth telling: commits that don't count and why. `missing` are things that could not be read."""

    def __init__(self, directory, secrets):
        directory = Path(directory)
        self.notes, self.missing = [], []
        catalogue = Catalogue(directory / "catalogue")
        self.roster = Roster(catalogue.entries, secrets.folder)
        self.notes += [f"roster entry {name.hex()}: {reason}" for name, reason in self.roster.refused]
        self.epochs = self.roster.unseal_epochs(secrets.epochs)
        if self.roster.folder not in self.epochs:
            raise Refused("the reading secrets given do not open this folder")
        founding = self.epochs[self.roster.folder]
        self.packs = Packs(directory / "packs", list(self.epochs.values()), derive("chunk id key", founding))
        self._commits(catalogue.commits)
        self.tree = Tree(
            (self.commits[name].lamport, name, self.commits[name].author, self.bodies[name])
            for name in self.accepted
            if name in self.bodies
        )
        self.labels = {}

    def label(self, author):
        if author not in self.labels:
            self.labels[author] = self.roster.label(author, self.epochs)
        return self.labels[author]

    def _commits(self, records):
        self.commits, self.bodies = {}, {}
        for name, data in records.items():
            try:
                self.commits[name] = parse_commit(data)
            except Refused as reason:
                self.missing.append(f"commit {name.hex()}: {reason}")
        dispositions = {}
        for commit in sorted(self.commits.values(), key=lambda commit: (commit.lamport, commit.id)):
            dispositions[commit.id] = self._disposition(commit, dispositions)
        waiting = [name for name in self.roster.last_commits() if dispositions.get(name) == "quarantined"]
        while waiting:
            name = waiting.pop()
            dispositions[name] = "accepted"
            waiting += [parent for parent in self.commits[name].parents if dispositions.get(parent) == "quarantined"]
        self.notes += [
            f"commit {name.hex()} by {self.commits[name].author.hex()[:8]}: {found}"
            for name, found in dispositions.items()
            if found != "accepted"
        ]
        self.accepted = {name for name, found in dispositions.items() if found == "accepted"}
        self.quarantined = {name for name, found in dispositions.items() if found == "quarantined"}
        for name in self.accepted | self.quarantined:
            self._body(self.commits[name])

    def _disposition(self, commit, dispositions):
        parents = [self.commits.get(parent) for parent in commit.parents]
        if any(parent is None or dispositions[parent.id] in ("waiting", "refused") for parent in parents):
            self.missing.append(f"commit {commit.id.hex()}: a commit before it is missing")
            return "waiting"
        if commit.lamport != 1 + max((parent.lamport for parent in parents), default=0) or commit.sequence < 1:
            found = "refused"
        else:
            found = self.roster.disposition(commit)
        return found

    def _body(self, commit):
        secret = self.epochs.get(commit.epoch)
        try:
            if secret is None:
                raise Refused("its epoch's reading secret is not known")
            body = commit.decrypt(secret)
        except Refused as reason:
            self.missing.append(f"commit {commit.id.hex()}: {reason}")
            return
        self.bodies[commit.id] = body
        for pack, chunks in body.tables:
            self.packs.add_table(pack, chunks)
