"""Two runs of the same pictures beside each other: two models, two layers, before and after training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from seewhy import tensors
from seewhy.bulk.bulk_run import BulkRun
from seewhy.errors import UsageError
from seewhy.summary.answers import Answers, Maps, gather, in_words, offered
from seewhy.summary.normalization import shares
from seewhy.targets import class_name

Indices = NDArray[np.intp]
SAME = 0.01  # pixels of the photo


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs, the pictures that both hold, in the order of the first.

    `first` and `second` are the places of those pictures in each run's answers; `likeness` is the correlation of the two heats
    (NaN for a blank one), `overlap` the share of heat that both have in the same place (1 - half the sum of differences).
    `notes` are what makes them less comparable than it seems.
    """

    runs: tuple[BulkRun, BulkRun]
    answers: tuple[Answers, Answers]
    first: Indices
    second: Indices
    likeness: NDArray[np.float64]
    overlap: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    @property
    def titles(self) -> tuple[str, str]:
        return str(self.runs[0].folder), str(self.runs[1].folder)

    @property
    def sides(self) -> tuple[tuple[Answers, Indices], tuple[Answers, Indices]]:
        """Each run's answers with the places of the common pictures in them."""
        return (self.answers[0], self.first), (self.answers[1], self.second)

    @cached_property
    def changed(self) -> tuple[Indices, int]:
        """The places, among the pictures in both, that are answered in another way, and of how many with two answers.

        Classes are compared by their names where the two models number them in different ways.
        """
        kind = "predicted_name" if renamed(*self.answers) else "predicted"
        one, other = (part.columns for part in self.answers)
        known, found = 0, []
        for place, (a, b) in enumerate(zip(self.first.tolist(), self.second.tolist(), strict=True)):
            if one["predicted"][a] is not None and other["predicted"][b] is not None:
                known += 1
                if one[kind][a] != other[kind][b]:
                    found.append(place)
        return np.array(found, np.intp), known

    @property
    def same_answer(self) -> float | None:
        """The share of pictures with the same predicted class; None where no picture has one in both runs."""
        changed, known = self.changed
        return 1 - len(changed) / known if known else None

    @property
    def least_alike(self) -> Indices:
        """The places of the pictures whose heat can be compared, the least alike first."""
        rising = np.argsort(self.likeness, kind="stable")
        return np.asarray(rising[~np.isnan(self.likeness[rising])])

    def median(self, values: NDArray[np.float64]) -> float | None:
        known = values[~np.isnan(values)]
        return float(np.median(known)) if len(known) else None


def compare(
    one: BulkRun, other: BulkRun, method: str | None = None, target: str | None = None, layer: str | None = None
) -> Comparison:
    """Match the pictures of two runs by id, and their maps, of a method and a question that both have.

    Raises UsageError where no picture is in both, or no method and question.
    """
    runs = (one, other)
    method, target = common(runs, method, target)
    answers = (gather(one, method, target, layer), gather(other, method, target, layer))
    places = {name: at for at, name in enumerate(answers[1].columns["id"])}
    first = np.array([at for at, name in enumerate(answers[0].columns["id"]) if name in places], np.intp)
    if not len(first):
        raise UsageError(
            f"{one.folder} and {other.folder} hold no picture of the same id; compare runs of the same input."
        )
    second = np.array([places[answers[0].columns["id"][at]] for at in first], np.intp)
    heat = on_grid(shares(answers[0].maps[first]), shares(answers[1].maps[second]))
    flat = [part.reshape(len(part), -1).astype(np.float64) for part in heat]
    centred = [part - part.mean(1, keepdims=True) for part in flat]
    lengths = [np.sqrt((part**2).sum(1)) for part in centred]
    with np.errstate(invalid="ignore", divide="ignore"):
        likeness = (centred[0] * centred[1]).sum(1) / (lengths[0] * lengths[1])
    overlap = 1 - np.abs(flat[0] - flat[1]).sum(1) / 2
    overlap[~(flat[0].any(1) & flat[1].any(1))] = np.nan
    notes = notes_on(runs, answers, first, second)
    return Comparison(runs, answers, first, second, likeness, overlap, notes)


def common(runs: tuple[BulkRun, BulkRun], method: str | None, target: str | None) -> tuple[str, str]:
    """The first method and question of the first run that the second has too."""
    one, other = (offered(run).pairs(run.folder, method, target) for run in runs)
    for pair in one:
        if pair in other:
            return pair
    raise UsageError(
        f"{runs[0].folder} and {runs[1].folder} have no method and target in common: "
        f"the first has {in_words(one)}; the second {in_words(other)}."
    )


def on_grid(one: Maps, other: Maps) -> tuple[Maps, Maps]:
    """Heat of two runs on the finer of both grids, whichever comes first."""
    shape = [max(sides) for sides in zip(one.shape[1:], other.shape[1:], strict=True)]
    made = [tensors.resize(torch.from_numpy(np.ascontiguousarray(maps)), shape).numpy() for maps in (one, other)]
    return shares(made[0]), shares(made[1])


def renamed(one: Answers, other: Answers) -> bool:
    """Whether a class of one index has two names; a model without names has none that differ."""
    pairs = ((index, name, other.names[index]) for index, name in one.names.items() if index in other.names)
    return any(a != b and class_name(index, None) not in (a, b) for index, a, b in pairs)


def notes_on(
    runs: tuple[BulkRun, BulkRun], answers: tuple[Answers, Answers], first: Indices, second: Indices
) -> tuple[str, ...]:
    """What both runs say of themselves, and where the same picture was another file, or was seen in another way."""
    found = [f"{run.folder}: {note}" for run, part in zip(runs, answers, strict=True) for note in part.notes]
    found += [
        f"{len(part) - len(first):,} pictures are only in {run.folder}"
        for run, part in zip(runs, answers, strict=True)
        if len(part) > len(first)
    ]
    one, other = (part.columns for part in answers)
    rows = list(zip(first.tolist(), second.tolist(), strict=True))
    crops = sum(not np.allclose(one["view"][a], other["view"][b], rtol=0, atol=SAME) for a, b in rows)
    sizes = sum(one["input"][a] != other["input"][b] for a, b in rows)
    files = sum(None is not one["sha256"][a] != other["sha256"][b] is not None for a, b in rows)
    if crops:
        found.append(f"{crops:,} pictures were seen through another crop: likeness compares places in the input")
    if sizes:
        found.append(f"{sizes:,} pictures were shown to the networks in different sizes")
    if files:
        found.append(f"{files:,} pictures are other files in the second run, of the same id")
    return tuple(found)
