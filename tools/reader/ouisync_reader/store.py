"""A folder's store: docs/format/store.md. What counts in it, decrypted."""

from pathlib import Path

from .catalogue import Catalogue
from .checkpoint import read_state
from .commits import parse_commit, parse_meta
from .errors import Refused
from .keys import derive
from .packs import Packs
from .roster import WRITER, Roster
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
        self._commits(catalogue)
        state, applied = self._start()
        self.tree = Tree(
            (
                (self.commits[name].lamport, name, self.commits[name].author, self.bodies[name])
                for name in self.accepted - applied
                if name in self.bodies
            ),
            state,
        )
        self.labels = {}

    def label(self, author):
        if author not in self.labels:
            self.labels[author] = self.roster.label(author, self.epochs)
        return self.labels[author]

    def _commits(self, catalogue):
        self.commits, self.bodies = {}, {}
        for name, data in catalogue.commits.items():
            try:
                self.commits[name] = parse_commit(data)
            except Refused as reason:
                self.missing.append(f"commit {name.hex()}: {reason}")
        self.known = {name: parse_meta(data) for name, data in catalogue.metas.items()}
        self.known.update(self.commits)
        self.absent = {
            name for commit in self.known.values() for name in commit.parents if name not in self.commits
        } | (self.known.keys() - self.commits.keys())
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
        parents = [self.known.get(parent) for parent in commit.parents]
        # A commit without bytes was accepted when they were here, or a checkpoint says that it counts.
        if any(parent is None for parent in parents) or any(
            dispositions.get(parent) in ("waiting", "refused") for parent in commit.parents
        ):
            self.missing.append(f"commit {commit.id.hex()}: a commit before it is missing")
            return "waiting"
        if commit.lamport != 1 + max((parent.lamport for parent in parents), default=0) or commit.sequence < 1:
            found = "refused"
        else:
            found = self.roster.disposition(commit)
        return found

    def _ancestors(self, names):
        found, waiting = set(), list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.known[name].parents if name in self.known else []
        return found

    def _start(self):
        """The state to begin with and the commits that are in it; none where the bytes of all commits are here."""
        if not self.absent:
            return None, set()
        candidates = [name for name in self.accepted if name in self.bodies and self.bodies[name].state]
        for name in sorted(candidates, key=lambda name: (self.commits[name].lamport, name), reverse=True):
            commit = self.commits[name]
            covered = self._ancestors(commit.parents)
            if not self.absent <= covered:
                continue
            try:
                state = read_state(self.packs, self.bodies[name])
            except Refused as reason:
                self.missing.append(f"checkpoint {name.hex()}: {reason}")
                continue
            for pack, chunks in state.tables:
                self.packs.add_table(pack, chunks)
            return state, self._counting(commit, covered)
        self.missing.append(f"the bytes of {len(self.absent)} commits are gone, and no checkpoint that can be read covers them all")
        return None, set()

    def _counting(self, checkpoint, covered):
        """The covered commits with bytes that count by the roster that the checkpoint names: docs/format/checkpoints.md."""
        then = self.roster.state_of(self.roster.closure_of(checkpoint.roster))
        last = self._ancestors(self.roster.last_commits(then))
        counting = set()
        for name in covered & self.commits.keys():
            role = then.role(then.seat_of.get(self.commits[name].author))
            if role is not None and role >= WRITER or name in last:
                counting.add(name)
        return counting

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
