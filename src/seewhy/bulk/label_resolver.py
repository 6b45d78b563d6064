"""From labels as written in a dataset to classes of a model."""

from __future__ import annotations

from collections.abc import Sequence

from seewhy.errors import UsageError
from seewhy.targets.names import as_number, find_class


class LabelResolver:
    """Returns the class of a label: an index, a class name of the model, or the alphabetical position of a folder.

    Alphabetical order applies if no folder has the name of a class and there is one folder per class. A label without a class
    resolves to None. `notes` list what was inferred.
    """

    def __init__(
        self, labels: Sequence[str], *, has_folder_labels: bool, names: Sequence[str] | None, count: int | None
    ) -> None:
        self.names, self.count = names, count or (len(names) if names else None)
        self.notes: list[str] = []
        self.folder_classes: dict[str, int] = {}
        self.cache: dict[str, int | None] = {}
        # A quick test for labels that are not names: an error with close matches takes 10 ms per label.
        self.words = {word.strip().casefold() for name in names or () for word in (name, *name.split(","))}
        unknown = [label for label in labels if self(label) is None]
        if not unknown:
            return
        if has_folder_labels and len(unknown) == len(labels) == self.count:
            ordered = sorted(labels)
            self.folder_classes = {label: index for index, label in enumerate(ordered)}
            self.cache.clear()
            self.notes.append(
                "no folder has the name of a class, and there is one folder per class: assigned in alphabetical order "
                f"({ordered[0]} is 0, {ordered[-1]} is {len(ordered) - 1})"
            )
        else:
            examples = ", ".join(repr(label) for label in unknown[:3])
            self.notes.append(f"{len(unknown)} of {len(labels)} labels are not classes of the model ({examples})")

    def __call__(self, label: str | None) -> int | None:
        """Return the class index of a label, or None."""
        if label is None:
            return None
        if label not in self.cache:
            self.cache[label] = self.folder_classes[label] if label in self.folder_classes else self.find(label)
        return self.cache[label]

    def find(self, label: str) -> int | None:
        name = as_number(label)
        if self.count is None:
            return name if isinstance(name, int) and name < 2**31 else None  # the column is int32
        if isinstance(name, str) and name.strip().casefold() not in self.words:
            return None
        try:
            return find_class(name, self.names, self.count)
        except UsageError:
            return None
