"""A finished or unfinished run, to be read: as Arrow, pandas, NumPy, or one picture's maps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.cells import unpacked
from seewhy.bulk.plan import JOB, read_job
from seewhy.errors import ChoiceError, UnknownName, UsageError
from seewhy.view import View

if TYPE_CHECKING:
    import pyarrow as pa

PER_LAYER = (
    "lo", "hi", "positive", "peak_x", "peak_y", "centre_x", "centre_y", "spread", "border", "corner", "inside", "flags"
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What `seewhy bulk` wrote into a folder: a row for each picture, question and method.

    `settings` are what was asked, `model` where the network comes from. A run that is still being written, or was
    interrupted, holds the pictures of its finished `files`; `complete` says whether that is all.

    >>> Run.read("nowhere")
    Traceback (most recent call last):
    seewhy.errors.UsageError: nowhere: no run here (job.json is missing). Make one: seewhy bulk photos/ --out nowhere
    """

    folder: Path
    job: Mapping[str, Any]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Run:
        """The run in a folder. Raises UsageError where there is none."""
        path = Path(folder)
        job = read_job(path)
        if job is None:
            raise UsageError(f"{path}: no run here ({JOB} is missing). Make one: seewhy bulk photos/ --out {path}")
        return cls(path, job)

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.job["settings"])

    @property
    def model(self) -> dict[str, Any]:
        return dict(self.job["model"])

    @property
    def store(self) -> str:
        return str(self.job["settings"]["store"])

    @property
    def files(self) -> list[Path]:
        """The part files that are finished, in order; those of another job, should there be any, do not count."""
        ending = f".{self.job['fingerprint']}.parquet"
        return sorted(path for path in self.folder.glob(f"part-*{ending}") if path.is_file())

    @property
    def complete(self) -> bool:
        return len(self.files) == int(self.job["settings"]["parts"])

    def batches(self, columns: Sequence[str] | None = None, where: Any = None) -> Iterator[pa.RecordBatch]:
        """The rows, a few at a time: for runs larger than memory. `where` is a pyarrow expression."""
        if self.files:
            yield from self.dataset.to_batches(columns=columns, filter=where)

    @property
    def dataset(self) -> Any:
        """The part files as a pyarrow.dataset."""
        from pyarrow import dataset

        from seewhy.bulk.rows import SCHEMA

        return dataset.dataset(list(map(str, self.files)), format="parquet", schema=SCHEMA)

    @cached_property
    def table(self) -> pa.Table:
        """All rows as a pyarrow.Table."""
        return self.dataset.to_table()

    @property
    def failed(self) -> list[dict[str, str]]:
        """The pictures that failed: id, path and error."""
        import pyarrow.compute as pc

        known = self.table.select(["id", "path", "error"])
        return list(known.filter(pc.is_valid(known["error"])).to_pylist())

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layers that the rows have maps of, in execution order."""
        import pyarrow.compute as pc

        names = pc.unique(pc.list_flatten(self.table["layers"].combine_chunks())).to_pylist()
        return tuple(name for name in names if name is not None)

    def select(
        self, method: str | None = None, question: str | None = None, layer: str | None = None
    ) -> tuple[pa.Table, str]:
        """The good rows of one method and question, and the layer that is meant; what is left out must have one value only.

        Of several layers the last is meant. Raises ChoiceError where several are left, UnknownName for one that is not there.
        """
        import pyarrow.compute as pc

        good = self.table.filter(pc.is_null(self.table["error"]))
        if not good.num_rows:
            raise UsageError(f"{self.folder}: no picture of this run was explained.")
        for kind, given in (("method", method), ("question", question)):
            value = chosen(kind, given, pc.unique(good[kind]).to_pylist())
            good = good.filter(pc.equal(good[kind], value))
        names = [
            name
            for name in self.layers
            if name in set(pc.unique(pc.list_flatten(good["layers"].combine_chunks())).to_pylist())
        ]
        if layer is not None and layer not in names:
            raise UnknownName("layer", layer, names, hint=f"This run has {', '.join(names)}.")
        return good, layer or names[-1]

    def maps(
        self, method: str | None = None, question: str | None = None, layer: str | None = None
    ) -> tuple[list[str], NDArray[np.float32]]:
        """The ids of the pictures, and their signed maps (N, h, w) at one layer, in the method's own units.

        Raises UsageError where the maps are of several sizes.
        """
        good, layer = self.select(method, question, layer)
        found = [
            map_of(row, layer, self.store) for row in good.select(["layers", "shapes", "lo", "hi", "maps"]).to_pylist()
        ]
        if len({one.shape for one in found}) > 1:
            raise UsageError(f"the maps of {layer} are of several sizes; read them row by row: row['maps'].")
        return good["id"].to_pylist(), np.stack(found)

    def to_pandas(self, method: str | None = None, question: str | None = None, layer: str | None = None) -> Any:
        """A pandas.DataFrame, a row for each picture, with the numbers of one layer as columns; without maps."""
        import pandas

        good, layer = self.select(method, question, layer)
        rows = []
        for row in good.drop_columns(["shapes", "maps", "error"]).to_pylist():
            place = row.pop("layers").index(layer)
            rows.append({**row, **{name: row[name][place] for name in PER_LAYER}, "layer": layer})
        return pandas.DataFrame(rows)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{len(self.files)} of {self.job['settings']['parts']} parts"
        return f"<Run {self.folder}: {len(self):,} rows, {state}>"


read = Run.read


def map_of(row: Mapping[str, Any], layer: str, store: str) -> NDArray[np.float32]:
    """The signed map (h, w) of one row at a layer."""
    place = row["layers"].index(layer)
    height, width = row["shapes"][place]
    return unpacked(row["maps"][place], (height, width), row["lo"][place], row["hi"][place], store)


def view_of(row: Mapping[str, Any]) -> View:
    """Which rectangle of the photo the network saw."""
    left, top, right, bottom = row["view"]
    height, width = row["input"]
    return View((row["height"], row["width"]), (height, width), (left, top, right, bottom))


def photo_path(run: Run, row: Mapping[str, Any]) -> Path | None:
    """Where the photo of a row lies now, if it still does; of a picture in a tar file nowhere."""
    path = Path(row["path"])
    return path if path.is_file() else None


def chosen(kind: str, given: str | None, choices: Sequence[str]) -> str:
    if given is None:
        if len(choices) == 1:
            return choices[0]
        raise ChoiceError(
            f"{len(choices)} {kind}s, so say which: {kind}={choices[0]!r} or {', '.join(choices[1:])}.", choices
        )
    if given not in choices:
        raise UnknownName(kind, given, choices, hint=f"This run has {', '.join(choices)}.")
    return given


def footer(path: Path) -> dict[str, Any]:
    """What stands at the end of a part file: the job, and the versions that wrote it."""
    from pyarrow import parquet

    from seewhy.bulk.parts import KEY

    return dict(json.loads(parquet.read_schema(path).metadata[KEY]))
