"""The one kind of error that the reader shows."""


class Refused(Exception):
    """Bytes that are not what the format says, or something that is missing."""
