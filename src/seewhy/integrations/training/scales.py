"""One color scale for all steps of a training run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from seewhy.integrations.training.frames import Snapshot

HEADROOM = 1.25  # maps up to this multiple of the scale are drawn at full strength before all steps are drawn again


class SharedScales:
    """The maximum of each map over all steps, and the maps, to draw them again when it has risen.

    Attributes:
        maxima: The scale in use, by the name of the map.
    """

    def __init__(self) -> None:
        self.maxima: dict[str, float] = {}
        self._history: dict[str, list[Snapshot]] = {}

    def add(self, snapshots: Iterable[Snapshot]) -> list[Snapshot]:
        """Add the maps of one step. Return earlier maps that should be drawn again, because the scale has changed."""
        old: list[Snapshot] = []
        for new in snapshots:
            earlier = [one for one in self._history.get(new.name, ()) if one.step < new.step]  # later ones: another run
            earlier = [replace(one, background=new.background) for one in earlier]
            self._history[new.name] = [*earlier, new]
            if new.maximum > HEADROOM * self.maxima.get(new.name, 0.0):
                self.maxima[new.name] = new.maximum
                old += earlier
        return old

    def finish(self) -> list[Snapshot]:
        """Set each scale to the exact maximum. Return the maps that should be drawn again."""
        old: list[Snapshot] = []
        for name, history in self._history.items():
            top = max(one.maximum for one in history)
            if top != self.maxima.get(name):
                self.maxima[name] = top
                old += [one for one in history if one.background is not None]
        return old

    def state_dict(self) -> dict[str, Any]:
        """Return the maps of all steps, as tensors and plain values."""
        fields = ("name", "step", "lines", "maps", "size")
        return {
            "maxima": dict(self.maxima),
            "maps": [{name: getattr(one, name) for name in fields} for maps in self._history.values() for one in maps],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.maxima = dict(state["maxima"])
        self._history = {}
        for fields in state["maps"]:
            one = Snapshot(**{**fields, "lines": tuple(fields["lines"]), "size": tuple(fields["size"])})
            self._history.setdefault(one.name, []).append(one)


def by_step(snapshots: Sequence[Snapshot]) -> dict[int, list[Snapshot]]:
    """Group snapshots by step."""
    groups: dict[int, list[Snapshot]] = {}
    for one in snapshots:
        groups.setdefault(one.step, []).append(one)
    return groups
