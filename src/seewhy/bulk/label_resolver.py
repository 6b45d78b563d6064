"""From labels as they were written to classes of a model."""

from __future__ import annotations

from collections.abc import Sequence

from seewhy.errors import UsageError
from seewhy.targets import as_number, find_class


class LabelResolver:
    """The class that a label means: an index, a name of the model's, or, of folders one for each class, its place among them.

    `notes` say what was inferred. A label that means no class stays a label.
    """

    def __init__(self, labels: Sequence[str], *, grouped: bool, names: Sequence[str] | None, count: int | None) -> None:
        self.names, self.count = names, count or (len(names) if names else None)
        self.notes: list[str] = []
        self.places: dict[str, int] = {}
        self.known: dict[str, int | None] = {}
        # What is surely no name is looked up here: an error that offers close names takes 10 ms for each label.
        self.words = {word.strip().casefold() for name in names or () for word in (name, *name.split(","))}
        strange = [label for label in labels if self(label) is None]
        if not strange:
            return
        if grouped and len(strange) == len(labels) == self.count:
            self.places = {label: place for place, label in enumerate(sorted(labels))}
            first, last = sorted(labels)[0], sorted(labels)[-1]
            self.known.clear()
            self.notes.append(
                f"no folder has the name of a class, and there are as many: taken in alphabetical order ({first} is 0, "
                f"{last} is {len(labels) - 1})"
            )
        else:
            several = ", ".join(repr(label) for label in strange[:3])
            self.notes.append(f"{len(strange)} of {len(labels)} labels are no class of the model ({several})")

    def __call__(self, label: str | None) -> int | None:
        """The class of a label, or None."""
        if label is None:
            return None
        if label not in self.known:
            self.known[label] = self.places[label] if label in self.places else self.find(label)
        return self.known[label]

    def find(self, label: str) -> int | None:
        given = as_number(label)
        if self.count is None:
            return given if isinstance(given, int) and given < 2**31 else None  # as its column holds it
        if isinstance(given, str) and given.strip().casefold() not in self.words:
            return None
        try:
            return find_class(given, self.names, self.count)
        except UsageError:
            return None
