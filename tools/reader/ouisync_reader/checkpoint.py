"""The state that a checkpoint carries: docs/format/checkpoints.md, "State". Needed only where bytes of commits are gone."""

import hmac

from .commits import name, place, timestamp, value
from .errors import Refused
from .keys import digest
from .postcard import Decoder


class State:
    """Registers as of the commits that a checkpoint covers and that count."""

    def __init__(self):
        self.placements = []  # of directories: (stamp, node, parent, name)
        self.leaves = {}  # node -> (stamp, parent, name)
        self.executable, self.modified = {}, {}  # node -> (stamp, value)
        self.values = []  # (node, operation, stamp, author, time, value)
        self.replaced = set()  # (node, operation)
        self.tables = []  # (pack, places)


def read_state(packs, body):
    """The state of a checkpoint's body; its own tables are known to `packs` already."""
    wanted, content = body.state
    stream = b"".join(packs.read(content))
    if not hmac.compare_digest(digest(stream), wanted):
        raise Refused("a checkpoint's state is not what its digest says")
    decoder, state, node = Decoder(stream), State(), None
    if decoder.u8() != 1:
        raise Refused("a checkpoint's state of another version")
    while decoder.position < len(stream):
        record = Decoder(decoder.bytes())
        node = read_record(record, state, node)
        record.end()
    return state


def read_record(record, state, node):
    """Adds a record; gives the node that values belong to from here on."""
    kind = record.varint(32)
    if kind == 0:
        state.placements.append((stamp(record), record.fixed(16), record.fixed(16), name(record)))
    elif kind == 1:
        node = record.fixed(16)
        placement = record.option(lambda: (stamp(record), record.fixed(16), name(record)))
        executable = record.option(lambda: (stamp(record), record.boolean()))
        modified = record.option(lambda: (stamp(record), timestamp(record)))
        for register, found in ((state.leaves, placement), (state.executable, executable), (state.modified, modified)):
            if found is not None:
                register[node] = found
    elif kind == 2:
        written = stamp(record)
        author, time = record.id(), timestamp(record)
        state.values.append((node, written[1:], written, author, time, value(record)))
    elif kind == 3:
        operation = record.id(), record.varint(32)
        state.replaced.add((record.fixed(16), operation))
    elif kind == 4:
        pack, _commit, _round = record.id(), record.id(), record.u8()
        state.tables.append((pack, record.list(lambda: place(record), 1024)))
    else:
        raise Refused("a checkpoint's state has a record of an unknown kind")
    return node


def stamp(record):
    """(Lamport time, commit, index of the operation), which are compared in this order."""
    return record.varint(), record.id(), record.varint(32)
