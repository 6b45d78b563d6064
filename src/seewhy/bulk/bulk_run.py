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

from seewhy.bulk.map_codec import decode_bytes
from seewhy.bulk.plan import JOB, read_job
from seewhy.errors import UnknownName, UsageError
from seewhy.explanation.selection import choose
from seewhy.images.view import View

if TYPE_CHECKING:
    import pyarrow as pa

CELLS = ("shapes", "lo", "hi", "maps")  # what a map is read from
PER_LAYER = (
    *CELLS, "positive", "peak_x", "peak_y", "center_x", "center_y", "spread", "border", "corner", "inside", "flags"
)  # fmt: skip


@dataclass(frozen=True)
class BulkRun:
    """What `seewhy bulk` wrote into a folder: a row for each picture, question and method.

    `settings` are what was asked, `model` where the network comes from. A run that is still being written, or was
    interrupted, holds the pictures of its finished `files`; `complete` says whether that is all.

    >>> BulkRun.read("nowhere")
    Traceback (most recent call last):
    seewhy.errors.UsageError: nowhere: no run here (job.json is missing). Make one: seewhy bulk photos/ --out nowhere
    """

    folder: Path
    job: Mapping[str, Any]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> BulkRun:
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
        from pyarrow.dataset import field

        found = self.dataset.to_table(columns=["id", "path", "error"], filter=field("error").is_valid())
        return list(found.to_pylist())

    @cached_property
    def kinds(self) -> dict[str, dict[str, dict[str, None]]]:
        """What the good rows hold, by method: the `questions` and the `layers`, in the order of the rows."""
        import pyarrow.compute as pc

        found: dict[str, dict[str, dict[str, None]]] = {}
        for batch in self.batches(columns=["method", "target", "layers"]):
            for method in batch["method"].unique().to_pylist():
                if method is None:  # a picture that failed
                    continue
                rows = batch.filter(pc.equal(batch["method"], method))
                own = found.setdefault(method, {"targets": {}, "layers": {}})
                own["targets"] |= dict.fromkeys(rows["target"].unique().to_pylist())
                own["layers"] |= dict.fromkeys(pc.list_flatten(rows["layers"]).unique().to_pylist())
        return found

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the rows have maps of, in execution order."""
        return tuple(dict.fromkeys(name for own in self.kinds.values() for name in own["layers"]))

    def select(
        self, method: str | None = None, target: str | None = None, layer: str | None = None
    ) -> tuple[str, str, str]:
        """The method, question and layer that are meant; what is left out must have one value only, of several layers the last.

        Raises ChoiceError where several are left, UnknownName for one that is not there.
        """
        if not self.kinds:
            raise UsageError(f"{self.folder}: no picture of this run was explained.")
        method = choose("method", method, list(self.kinds), "run")
        target = choose("target", target, list(self.kinds[method]["targets"]), "run")
        layers = list(self.kinds[method]["layers"])
        if layer is not None and layer not in layers:
            raise UnknownName("layer", layer, layers, hint=f"This run has {', '.join(layers)}.")
        return method, target, layer or layers[-1]

    def rows(
        self,
        method: str | None = None,
        target: str | None = None,
        layer: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The good rows of one method and question, one by one; of their lists what belongs to the layer.

        Rows without a map at that layer are left out.
        """
        from pyarrow.dataset import field

        method, target, layer = self.select(method, target, layer)
        wanted = None if columns is None else list(dict.fromkeys([*columns, "layers"]))
        where = (field("method") == method) & (field("target") == target)
        for batch in self.batches(columns=wanted, where=where):
            for row in batch.to_pylist():
                names = row.pop("layers")
                if layer in names:
                    place = names.index(layer)
                    yield {name: value[place] if name in PER_LAYER else value for name, value in row.items()}

    def maps(
        self, method: str | None = None, target: str | None = None, layer: str | None = None
    ) -> tuple[list[str], NDArray[np.float32]]:
        """The ids of the pictures, and their signed maps (N, h, w) at one layer, in the method's own units.

        Raises UsageError where the maps are of several sizes.
        """
        ids, found = [], []
        for row in self.rows(method, target, layer, ["id", *CELLS]):
            ids.append(row["id"])
            found.append(decode_layer_map(row, self.store))
        if len({one.shape for one in found}) > 1:
            raise UsageError("these maps are of several sizes; read them one by one: seewhy.read_run(RUN).rows(...).")
        return ids, np.stack(found)

    def to_pandas(self, method: str | None = None, target: str | None = None, layer: str | None = None) -> Any:
        """A pandas.DataFrame, a row for each picture, with the numbers of one layer as columns; without maps."""
        import pandas

        from seewhy.bulk.rows import SCHEMA

        names = [name for name in SCHEMA.names if name not in ("shapes", "maps", "error", "layers")]
        layer = self.select(method, target, layer)[2]
        return pandas.DataFrame([{**row, "layer": layer} for row in self.rows(method, target, layer, names)])

    def __len__(self) -> int:
        return int(self.dataset.count_rows())

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{len(self.files)} of {self.job['settings']['parts']} parts"
        return f"<Run {self.folder}: {len(self):,} rows, {state}>"


read_run = BulkRun.read


def decode_map(row: Mapping[str, Any], layer: str, store: str) -> NDArray[np.float32]:
    """The signed map (h, w) of one row of the table at a layer."""
    place = row["layers"].index(layer)
    return decode_layer_map({name: row[name][place] for name in CELLS}, store)


def decode_layer_map(row: Mapping[str, Any], store: str) -> NDArray[np.float32]:
    """The signed map (h, w) of one of `BulkRun.rows`, which is of one layer."""
    height, width = row["shapes"]
    return decode_bytes(row["maps"], (height, width), row["lo"], row["hi"], store)


def view_from_row(row: Mapping[str, Any]) -> View:
    """Which rectangle of the photo the network saw."""
    left, top, right, bottom = row["view"]
    height, width = row["input"]
    return View((row["height"], row["width"]), (height, width), (left, top, right, bottom))


def read_footer(path: Path) -> dict[str, Any]:
    """What stands at the end of a part file: the job, and the versions that wrote it."""
    from pyarrow import parquet

    from seewhy.bulk.part_files import KEY

    return dict(json.loads(parquet.read_schema(path).metadata[KEY]))
