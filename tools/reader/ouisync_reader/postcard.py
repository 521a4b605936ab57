"""Decoding of postcard 1, as docs/format.md ("Encoding") says. Anything but the shortest form is refused."""

from .errors import Refused


class Decoder:
    def __init__(self, data, position=0):
        self.data = bytes(data)
        self.position = position

    def fixed(self, length):
        end = self.position + length
        if end > len(self.data):
            raise Refused("the data ends too early")
        part = self.data[self.position : end]
        self.position = end
        return part

    def u8(self):
        return self.fixed(1)[0]

    def varint(self, bits=64):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise Refused("an integer is longer than it need be")
                if value >> bits:
                    raise Refused("an integer is too great")
                return value
            shift += 7
            if shift > 63:
                raise Refused("an integer is too long")

    def signed(self):
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def boolean(self):
        value = self.u8()
        if value > 1:
            raise Refused("a boolean is neither 0 nor 1")
        return value == 1

    def bytes(self):
        return self.fixed(self.varint(32))

    def sized(self, length):
        """A byte string that must have one length."""
        found = self.bytes()
        if len(found) != length:
            raise Refused("a byte string has another length than it must")
        return found

    def text(self):
        try:
            return self.bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused("a text is not UTF-8") from error

    def list(self, item, limit=1 << 26):
        count = self.varint(32)
        if count > limit:
            raise Refused("a list is too long")
        return [item() for _ in range(count)]

    def option(self, item):
        return item() if self.boolean() else None

    def id(self):
        return self.fixed(32)

    def end(self):
        if self.position != len(self.data):
            raise Refused("bytes follow the data")


def ascending(items, what):
    """Refuses a list that is not strictly ascending."""
    if any(left >= right for left, right in zip(items, items[1:])):
        raise Refused(f"{what} are not in strictly ascending order")
    return items
