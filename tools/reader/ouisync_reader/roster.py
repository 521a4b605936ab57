"""Who is a member, and what follows: docs/format/keys-commits-roster.md, "Roster entry"."""

import unicodedata

from .errors import Refused
from .keys import check_signature, derive, digest, epoch_commitment, open_sealed, roster_text_key
from .postcard import Decoder, ascending

DOMAIN = b"ouisync v1 roster entry\0"
FOUND, INVITE, JOIN, SET_ROLE, REMOVE, REVOKE, ROTATE, SUCCEED, POLICY = range(9)
SAFE, READER, WRITER, OWNER = range(4)
ENVELOPE_KEY, SECRET, PROFILE, SEALED_KEY = 1216, 1169, 1360, 48


class Entry:
    """A signed statement; its action's fields are attributes."""

    def __init__(self, data):
        if len(data) > 4 << 20:
            raise Refused("a roster entry is too long")
        self.id = digest(data)
        decoder = Decoder(data)
        if decoder.u8() != 1:
            raise Refused("a roster entry of another version")
        self.folder = decoder.option(decoder.id)
        self.parents = ascending(decoder.list(decoder.id, 256), "parents")
        self.depth, self.author, self.action = decoder.varint(), decoder.id(), decoder.varint(32)
        self._fields(decoder)
        message = DOMAIN + data[: decoder.position]
        check_signature(self.author, decoder.fixed(64), message)
        second = {FOUND: "root", JOIN: "invitation", SUCCEED: "member"}.get(self.action)
        if second:
            check_signature(getattr(self, second), decoder.fixed(64), message)
        decoder.end()
        self.order = self.depth, self.id

    def _certificate(self, decoder):
        self.member = decoder.id()
        decoder.sized(ENVELOPE_KEY)
        self.sealed_profile = decoder.sized(PROFILE)

    def _fields(self, decoder):
        if self.action == FOUND:
            self.root = decoder.id()
            self._certificate(decoder)
            decoder.id()
            self.commitment = decoder.id()
            decoder.sized(SECRET)
        elif self.action == INVITE:
            self.invitation = decoder.id()
            decoder.sized(ENVELOPE_KEY)
            self.role, self.uses = role(decoder), decoder.varint(32)
            if not 1 <= self.uses <= 1024:
                raise Refused("an invitation has an impossible number of uses")
            self.expires = decoder.option(decoder.varint)
            self.epoch = decoder.id()
            decoder.sized(SECRET)
            self.sealed_key = decoder.sized(SEALED_KEY)
        elif self.action == JOIN:
            self.invitation = decoder.id()
            self._certificate(decoder)
        elif self.action == SET_ROLE:
            self.member, self.role = decoder.id(), role(decoder)
            self.last = last_commits(decoder)
        elif self.action == REMOVE:
            self.member, self.last = decoder.id(), last_commits(decoder)
        elif self.action == REVOKE:
            self.invitation = decoder.id()
        elif self.action == ROTATE:
            self.commitment = decoder.id()
            sealed = decoder.list(lambda: (decoder.u8(), decoder.id(), decoder.sized(SECRET)), 1024)
            ascending([recipient[:2] for recipient in sealed], "recipients")
            ascending(decoder.list(lambda: decoder.sized(SECRET), 1024), "blind secrets")
            self.previous = decoder.list(lambda: (decoder.id(), decoder.sized(SEALED_KEY), decoder.sized(SEALED_KEY)), 4096)
            ascending([epoch for epoch, *_ in self.previous], "older epochs")
        elif self.action == SUCCEED:
            self.member = decoder.id()
            decoder.sized(ENVELOPE_KEY)
        elif self.action == POLICY:
            decoder.bytes()
        else:
            raise Refused("a roster entry of an unknown kind")

    def makes_member(self):
        return self.action in (FOUND, JOIN, SUCCEED)


def role(decoder):
    found = decoder.u8()
    if found > OWNER:
        raise Refused("an unknown role")
    return found


def last_commits(decoder):
    named = decoder.list(lambda: (decoder.id(), decoder.varint(), decoder.id()), 256)
    return [commit for _, _, commit in ascending(named, "last commits")]


class State:
    """What a set of entries means. `entries` is closed: every entry's parents are in it."""

    def __init__(self, roster, entries):
        self.roster = roster
        self.effective = set()
        self._revocations(entries)
        self._rest(entries)

    def _revocations(self, entries):
        roster = self.roster
        revocations = [entry for entry in entries if roster.is_revocation(entry)]
        for entry in sorted(revocations, key=lambda entry: (roster.facts[entry.id].seniority, entry.order)):
            chain = roster.with_grants(entry)
            if not any(roster.hits(decided, link) for decided in self.effective for link in chain):
                self.effective.add(entry)

    def _rest(self, entries):
        roster = self.roster
        self.counting = set(self.effective)
        self.seat_of, self.seats, self.uses = {}, {}, {}  # key -> seat; seat -> its keys; invitation -> joins
        self.invitations, self.succeeded, self.set_roles = {}, set(), {}
        for entry in sorted(entries, key=lambda entry: entry.order):
            if entry in self.counting or roster.is_revocation(entry):
                if entry in self.counting and entry.action == SET_ROLE:
                    self.set_roles.setdefault(roster.facts[entry.id].subject, []).append(entry)
                continue
            facts = roster.facts[entry.id]
            if not all(grant in self.counting for grant in facts.grants):
                continue
            if any(roster.hits(decided, entry) for decided in self.effective):
                continue
            if entry.makes_member() and entry.member in self.seat_of:
                continue
            if entry.action in (FOUND, JOIN):
                if entry.action == JOIN:
                    used = self.uses.get(entry.invitation, 0)
                    if used >= self.invitations[entry.invitation].uses:
                        continue
                    self.uses[entry.invitation] = used + 1
                self.seats[entry] = [entry.member]
                self.seat_of[entry.member] = entry
            elif entry.action == SUCCEED:
                if entry.author in self.succeeded:
                    continue
                self.succeeded.add(entry.author)
                self.seats[facts.seat].append(entry.member)
                self.seat_of[entry.member] = facts.seat
            elif entry.action == INVITE:
                self.invitations.setdefault(entry.invitation, entry)
            elif entry.action == SET_ROLE:
                self.set_roles.setdefault(facts.subject, []).append(entry)
            self.counting.add(entry)
        self.removed = {roster.facts[entry.id].subject for entry in self.effective if entry.action == REMOVE}

    def in_force(self, seat):
        """The counting SetRole entries of a seat that no other of them sees."""
        entries = self.set_roles.get(seat, [])
        return [entry for entry in entries if not any(entry.id in self.roster.closure(other) for other in entries)]

    def role(self, seat):
        """The role of a seat; `None` when it is removed or no seat here."""
        if seat not in self.seats or seat in self.removed:
            return None
        lowered = [entry.role for entry in self.in_force(seat)]
        if lowered:
            return min(lowered)
        return OWNER if seat.action == FOUND else self.invitations[seat.invitation].role

    def member(self, key):
        """The seat that a key holds now, by the last of the seat's keys."""
        seat = self.seat_of.get(key)
        if self.role(seat) is None or self.seats[seat][-1] != key:
            return None
        return seat

    def open(self, invitation):
        entry = self.invitations.get(invitation)
        return (
            entry is not None
            and self.uses.get(invitation, 0) < entry.uses
            and not any(self.roster.closes(decided, entry) for decided in self.effective)
        )

    def epochs(self):
        return {entry.id for entry in self.counting if entry.action in (FOUND, ROTATE)}


class Facts:
    """What an entry's own closure says of it."""

    def __init__(self, seat, subject, grants, seniority, lowers, was_owner, generation):
        self.seat, self.subject, self.grants, self.seniority = seat, subject, grants, seniority
        self.lowers, self.was_owner, self.generation = lowers, was_owner, generation


class Roster:
    """All entries that hold up, and what they mean together."""

    def __init__(self, records, folder=None):
        self.entries, self.facts, self.closures, self.states, self.refused = {}, {}, {}, {}, []
        waiting = {}
        for name, data in records.items():
            try:
                waiting[name] = Entry(data)
            except Refused as reason:
                self.refused.append((name, str(reason)))
        for entry in sorted(waiting.values(), key=lambda entry: entry.order):
            try:
                self._judge(entry, folder)
                self.entries[entry.id] = entry
            except Refused as reason:
                self.refused.append((entry.id, str(reason)))
        founding = [entry for entry in self.entries.values() if entry.action == FOUND]
        if len(founding) != 1:
            raise Refused("there is not exactly one founding entry in the store")
        self.founding = founding[0]
        self.folder = self.founding.id
        self.state = State(self, self.entries.values())

    def closure(self, entry):
        """The ids of all entries before one."""
        return self.closures[entry.id]

    def closure_of(self, heads):
        """The ids of some entries and all before them; `None` when one is unknown."""
        if any(head not in self.entries for head in heads):
            return None
        return frozenset(heads).union(*(self.closures[head] for head in heads))

    def state_of(self, names):
        if names not in self.states:
            self.states[names] = State(self, [self.entries[name] for name in names])
        return self.states[names]

    def _judge(self, entry, folder):
        """Refuses an entry that its closure does not allow, else notes its facts."""
        if entry.action == FOUND:
            if entry.parents or entry.depth or entry.folder is not None or entry.author != entry.member:
                raise Refused("a founding entry with parents, or of another author")
            if folder not in (None, entry.id):
                raise Refused("the founding entry of another folder")
            self.closures[entry.id] = frozenset()
            self.facts[entry.id] = Facts(entry, None, [], entry.order, False, False, 0)
            return
        closure = self.closure_of(entry.parents) if entry.parents else None
        if closure is None:
            raise Refused("an entry before it is unknown or refused")
        if entry.depth != 1 + max(self.entries[parent].depth for parent in entry.parents):
            raise Refused("a wrong depth")
        before = self.state_of(closure)
        if entry.folder not in [seat.id for seat in before.seats if seat.action == FOUND]:
            raise Refused("an entry of another folder")
        self.closures[entry.id] = closure
        if entry.action == JOIN:
            if entry.author != entry.member or entry.member in before.seat_of or not before.open(entry.invitation):
                raise Refused("a join without an open invitation, or of a known member")
            grants, seat, subject = [before.invitations[entry.invitation]], entry, None
        else:
            seat = before.member(entry.author)
            if seat is None:
                raise Refused("its author is no member")
            subject = before.member(entry.member) if entry.action in (SET_ROLE, REMOVE) else None
            if entry.action in (SET_ROLE, REMOVE) and subject is None:
                raise Refused("it speaks of somebody who is no member")
            grants = [seat] + [
                other for other in before.counting if other.action == SUCCEED and self.facts[other.id].seat is seat
            ]
            if self.needs_owner(entry, subject is seat):
                if before.role(seat) != OWNER:
                    raise Refused("its author is no owner")
                grants += before.in_force(seat)
            self._details(entry, before)
        generation = 0
        if entry.action == ROTATE:
            generation = 1 + max(
                self.facts[name].generation for name in closure if self.entries[name].action in (FOUND, ROTATE)
            )
        was = before.role(subject) if subject else None
        lowers = entry.action == SET_ROLE and entry.role < was
        self.facts[entry.id] = Facts(seat, subject, grants, seat.order, lowers, was == OWNER, generation)

    def _details(self, entry, before):
        if entry.action == INVITE and (entry.invitation in before.invitations or entry.epoch not in before.epochs()):
            raise Refused("an invitation that is not fresh, or to an epoch that is none")
        if entry.action == REVOKE and entry.invitation not in before.invitations:
            raise Refused("it revokes an unknown invitation")
        if entry.action == SUCCEED and entry.member in before.seat_of:
            raise Refused("a successor that is known already")
        if entry.action == SET_ROLE and entry.role >= WRITER and entry.last:
            raise Refused("last commits of somebody who writes on")

    @staticmethod
    def needs_owner(entry, of_itself):
        return entry.action not in (SUCCEED, JOIN, FOUND) and not (entry.action == REMOVE and of_itself)

    def is_revocation(self, entry):
        return entry.action in (REMOVE, REVOKE) or self.facts[entry.id].lowers

    def with_grants(self, entry):
        """An entry and everything that its right comes from."""
        found, waiting = [], [entry]
        while waiting:
            entry = waiting.pop()
            if entry not in found:
                found.append(entry)
                waiting += self.facts[entry.id].grants
        return found

    def closes(self, revocation, invite):
        """Whether a revocation closes an invitation."""
        if revocation.action == REVOKE:
            return revocation.invitation == invite.invitation
        subject = self.facts[revocation.id].subject
        theirs = (
            self.facts[invite.id].seat is subject
            or subject.action == JOIN
            and subject.invitation == invite.invitation
        )
        if revocation.action == REMOVE:
            return theirs
        return theirs and self.facts[revocation.id].lowers and invite.role > revocation.role

    def hits(self, revocation, entry):
        if entry is revocation or entry.id in self.closure(revocation):
            return False
        facts, own = self.facts[revocation.id], self.facts[entry.id]
        if revocation.action == REMOVE and own.seat is facts.subject:
            return True
        if (
            revocation.action == SET_ROLE
            and facts.was_owner
            and own.seat is facts.subject
            and self.needs_owner(entry, own.subject is own.seat)
            and revocation.id not in self.closure(entry)
        ):
            return True
        return entry.action == JOIN and any(self.closes(revocation, grant) for grant in own.grants)

    def unseal_epochs(self, secrets):
        """All reading secrets that follow from some: {epoch: secret}. What does not match its epoch's commitment is ignored."""
        known = {}
        for epoch, secret in secrets.items():
            entry = self.entries.get(epoch)
            if entry is not None and getattr(entry, "commitment", None) == epoch_commitment(secret):
                known[epoch] = secret
        waiting = list(known)
        while waiting:
            newer = waiting.pop()
            for epoch, sealed, _ in getattr(self.entries[newer], "previous", []):
                if epoch in known or epoch not in self.entries:
                    continue
                secret = open_sealed(derive("older epoch read key", known[newer] + epoch), sealed)
                if self.entries[epoch].commitment == epoch_commitment(secret):
                    known[epoch] = secret
                    waiting.append(epoch)
        return known

    def label(self, key, secrets):
        """The name of the member that a key belongs to; `None` when it can't be read."""
        seat = self.state.seat_of.get(key)
        try:
            if seat is self.founding:
                name_key = derive("founder name key", roster_text_key(secrets[self.folder]))
            else:
                invite = self.facts[seat.id].grants[0]
                text_key = roster_text_key(secrets[invite.epoch])
                name_key = open_sealed(derive("invited names key", text_key + invite.invitation), invite.sealed_key)
            plain = open_sealed(derive("member name key", name_key + seat.member), seat.sealed_profile)
            name = plain[1 : 1 + min(plain[0], 127)].decode("utf-8")
            return "".join("\ufffd" if unicodedata.category(char) == "Cc" else char for char in name)
        except (Refused, KeyError, AttributeError, UnicodeDecodeError):
            return None

    def disposition(self, commit):
        """Whether a commit counts by itself: accepted, quarantined, waiting or refused. `last` is looked at by the caller."""
        closure = self.closure_of(commit.roster)
        if closure is None:
            return "waiting"
        before = self.state_of(closure)
        seat = before.member(commit.author)
        needed = WRITER if commit.checkpoint is None else OWNER
        if commit.folder != self.folder or seat is None or before.role(seat) < needed or commit.epoch not in before.epochs():
            return "refused"
        now = self.state.role(seat)
        return "accepted" if now is not None and now >= WRITER else "quarantined"

    def last_commits(self, state=None):
        """The commits that effective removals name: they and all before them count."""
        return {commit for entry in (state or self.state).effective if entry.action in (REMOVE, SET_ROLE) for commit in entry.last}
