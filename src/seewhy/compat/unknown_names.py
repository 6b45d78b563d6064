"""What to raise for a name that a package has, and seewhy's version of its API has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seewhy.errors import find_close_matches


def name_lookup(
    module: str, package: str, names: Sequence[str], instead: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that raises ImportError with what to do.

    An AttributeError would be replaced by Python with a line that names only the missing name.

    Args:
        module: The module, for example "seewhy.compat.torchcam.methods".
        package: The same module of the other package.
        names: The names that exist.
        instead: For some names that do not exist, what to use instead.
    """

    def look_up(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        close = find_close_matches(name, names, 1)
        advice = (instead or {}).get(name) or (
            f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(names))}."
        )
        raise ImportError(
            f"{module} has no {name!r}: {advice} For anything else, import it from {package}: both can be used in one program."
        )

    return look_up
