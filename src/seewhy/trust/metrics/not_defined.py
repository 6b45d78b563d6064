"""`NotDefined`: a metric has no value for a map."""


class NotDefined(Exception):
    """A metric has no value for a map; the message is the reason."""
