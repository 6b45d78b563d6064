"""What can go wrong, as one small tree.

    SeewhyError
    ├── ImageError          a picture cannot be read; the other pictures are still done
    └── UsageError          the call cannot be carried out as given
        ├── UnknownName     a model, layer, method, class, colour table, ... that does not exist
        ├── ModelError      a model that cannot be loaded or watched
        │   └── OfflineError    weights that would have to be downloaded, and no network
        ├── LayerError      a layer that exists but cannot give a map
        ├── TargetError     a question the model's output cannot answer
        ├── MethodError     a method that does not fit the model, the layer or the target, or a setting that makes no sense
        └── ChoiceError     a result with several maps where one was asked for

Every error says what happened, what was given and what to do, and carries its data as attributes.
`docs/errors.md` has a row for each.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What networks raise on inputs of a size that they do not take.
REFUSALS = (RuntimeError, AssertionError, ValueError, IndexError, TypeError)


class SeewhyError(Exception):
    """Any error that seewhy raises on purpose. `str(error)` is one line."""


class ImageError(SeewhyError):
    """A picture that cannot be read. Attributes: `source` (as given), `reason`."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class UsageError(SeewhyError):
    """A call that cannot be carried out as given."""


class UnknownName(UsageError):
    """A name that does not exist. Attributes: `kind`, `given`, `choices`, `close` (near matches, best first).

    >>> str(UnknownName("layer", "layer5", ["layer3", "layer4"], hint="List them: seewhy layers MODEL"))
    "no layer 'layer5' - did you mean 'layer4' or 'layer3'? List them: seewhy layers MODEL"
    """

    def __init__(self, kind: str, given: str, choices: Iterable[str], hint: str = "") -> None:
        self.kind = kind
        self.given = given
        self.choices = list(choices)
        self.close = close_matches(given, self.choices)
        guess = f" - did you mean {' or '.join(repr(name) for name in self.close)}?" if self.close else "."
        super().__init__(f"no {kind} '{given}'{guess}{' ' + hint if hint else ''}")


class ModelError(UsageError):
    """A model that cannot be loaded or watched. Attribute: `model` (its name or class)."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"{model}: {reason}")
        self.model = model
        self.reason = reason


class OfflineError(ModelError):
    """Weights that are not on this machine and cannot be downloaded now."""


class LayerError(UsageError):
    """A layer that exists but cannot give a map. Attribute: `layer`."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(f"layer '{layer}': {reason}")
        self.layer = layer
        self.reason = reason


class TargetError(UsageError):
    """A question the model's output cannot answer. Attribute: `target` (as given)."""

    def __init__(self, target: object, reason: str) -> None:
        super().__init__(f"target {target!r}: {reason}")
        self.target = target
        self.reason = reason


class MethodError(UsageError):
    """A method that does not fit the model, layer or target, or a wrong setting. Attributes: `method`, `reason`."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(f"method {method}: {reason}")
        self.method = method
        self.reason = reason


class ChoiceError(UsageError):
    """Several maps where one was asked for. Attribute: `choices` (the names one can choose from)."""

    def __init__(self, message: str, choices: Iterable[str]) -> None:
        super().__init__(message)
        self.choices = list(choices)


def close_matches(given: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """The `count` names most like `given`, best first; letter case does not matter."""
    folded: dict[str, str] = {}
    for name in choices:
        folded.setdefault(name.casefold(), name)
    return [folded[key] for key in difflib.get_close_matches(given.casefold(), folded, n=count, cutoff=0.6)]
