"""Read a run, complete or not: as Arrow, pandas or NumPy, or the maps of one image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.job_record import JOB, has_checks
from seewhy.bulk.plan import read_job
from seewhy.bulk.row_values import CHECK_COLUMNS, LAYER_COLUMNS, MAP_COLUMNS, JobSettings, Row, decode_layer_map
from seewhy.errors import UsageError
from seewhy.explanation.selection import MethodChoice, choose, match_layers, match_method, match_text, only
from seewhy.storage import RECORD, REPORT
from seewhy.storage.paths import check_named

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa
    from pyarrow import compute
    from pyarrow import dataset as arrow_dataset


@dataclass
class MethodContent:
    """The targets and layers that the rows of one method contain, in the order of the rows."""

    targets: dict[str, None] = field(default_factory=dict)
    layers: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True)
class BulkRun:
    """The result of `seewhy bulk` or `explain_all` in a folder: a row per image, target and method.

    A run that is in progress or was interrupted contains the images of its finished part files.

    Attributes:
        folder: The folder of the run.
        job: The content of its job.json.

    Example:
        >>> BulkRun.read("nowhere")
        Traceback (most recent call last):
        seewhy.errors.UsageError: nowhere: no such folder. Pass the folder that seewhy bulk wrote.
    """

    folder: Path
    job: Mapping[str, Any]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> BulkRun:
        """Open the run in a folder.

        Args:
            folder: The output folder of `seewhy bulk`.

        Returns:
            The run, with the part files that are finished at the time of each access.

        Raises:
            UsageError: The folder contains no run, or one of another version of seewhy.
        """
        check_named(folder)
        path = Path(folder)
        job = None if os.path.isfile(path) else read_job(path)
        if job is None:
            raise not_a_run(path)
        return cls(path, job)

    @property
    def settings(self) -> JobSettings:
        """The settings of the job, as in job.json."""
        return dict(self.job["settings"])

    @property
    def model(self) -> JobSettings:
        """The provenance of the model: name, weights, preprocessing, package versions."""
        return dict(self.job["model"])

    @property
    def store(self) -> str:
        """The format of the maps: "uint8" or "float16"."""
        return str(self.job["settings"]["store"])

    @property
    def has_checks(self) -> bool:
        """True if the job checked its maps, so that the rows have the columns of the check."""
        return has_checks(self.job["settings"])

    @property
    def schema(self) -> pa.Schema:
        """The columns of the rows."""
        from seewhy.bulk.rows import row_schema

        return row_schema(self.has_checks)

    @property
    def files(self) -> list[Path]:
        """The finished part files, in order. Files of other jobs in the folder are ignored."""
        parts, fingerprint = int(self.job["settings"]["parts"]), self.job["fingerprint"]
        name = re.compile(rf"part-(\d{{6,9}})-of-{parts:06d}\.{fingerprint}\.parquet")
        found = ((name.fullmatch(path.name), path) for path in self.folder.glob("part-*.parquet"))
        return sorted(path for match, path in found if match and int(match[1]) < parts and path.is_file())

    @property
    def complete(self) -> bool:
        """True if all parts are finished."""
        return len(self.files) == int(self.job["settings"]["parts"])

    def batches(
        self, columns: Sequence[str] | None = None, where: compute.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches, for runs that do not fit into memory.

        Args:
            columns: The columns to read. Default: all.
            where: A pyarrow expression that selects rows.
        """
        from seewhy.bulk.part_reader import check_query, read_parts

        check_query(columns, where, self.schema)
        yield from read_parts(self.files, self.job["fingerprint"], self.store, columns, where, self.schema)

    @property
    def dataset(self) -> arrow_dataset.Dataset:
        """The part files as a `pyarrow.dataset.Dataset`, for queries of pyarrow. Only their footers are checked."""
        from pyarrow import dataset

        from seewhy.bulk.part_reader import SCAN_OPTIONS, open_part

        for path in self.files:
            open_part(path, self.job["fingerprint"])
        parquet = dataset.ParquetFileFormat(default_fragment_scan_options=SCAN_OPTIONS)
        return dataset.dataset(list(map(str, self.files)), format=parquet, schema=self.schema)

    @cached_property
    def table(self) -> pa.Table:
        """All rows as a `pyarrow.Table`."""
        return self.to_table()

    def to_table(self, columns: Sequence[str] | None = None, where: compute.Expression | None = None) -> pa.Table:
        """Return the rows as a `pyarrow.Table`.

        Args:
            columns: As for `batches`.
            where: As for `batches`.
        """
        import pyarrow as pa

        from seewhy.bulk.part_reader import check_query

        check_query(columns, where, self.schema)
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        return pa.Table.from_batches(self.batches(columns, where), schema)

    @property
    def failed(self) -> list[dict[str, str]]:
        """The failed images: id, path and error."""
        from pyarrow.dataset import field as column

        return list(self.to_table(["id", "path", "error"], column("error").is_valid()).to_pylist())

    @cached_property
    def contents(self) -> dict[str, MethodContent]:
        """The targets and layers of each method, in the order of the rows."""
        import pyarrow.compute as pc

        contents: dict[str, MethodContent] = {}
        for batch in self.batches(columns=["method", "target", "layers"]):
            for method in batch["method"].unique().to_pylist():
                if method is None:  # failed images
                    continue
                rows = batch.filter(pc.equal(batch["method"], method))
                content = contents.setdefault(method, MethodContent())
                content.targets |= dict.fromkeys(rows["target"].unique().to_pylist())
                content.layers |= dict.fromkeys(pc.list_flatten(rows["layers"]).unique().to_pylist())
        return contents

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that have maps, in execution order."""
        return tuple(dict.fromkeys(name for content in self.contents.values() for name in content.layers))

    def select(
        self, method: MethodChoice = None, target: str | int | None = None, layer: str | None = None
    ) -> tuple[str, str, str]:
        """Return the method, the target and the layer that the arguments select.

        Args:
            method: A method of the run, in any spelling. May be None if the run has one method.
            target: A value of the `target` column, such as "top1" or "label". May be None if the run has one target.
            layer: A layer of the run; a module's name without "#2" is enough if it has one map. Default: the last one.

        Raises:
            ChoiceError: Several methods, targets or layers match.
            UnknownName: The run does not contain that name.
            UsageError: No image of the run was explained.
        """
        if not self.contents:
            raise UsageError(f"{self.folder}: this run contains no explained images.")
        method = match_method(list(self.contents), method, "run")
        target = match_text("target", list(self.contents[method].targets), target, "run")
        layers = list(self.contents[method].layers)
        matches = layers[-1:] if layer is None else match_layers(layers, layer)
        return method, target, only("layer", matches, str(layer)) if matches else choose("layer", layer, layers, "run")

    def rows(
        self,
        method: MethodChoice = None,
        target: str | int | None = None,
        layer: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[Row]:
        """Yield the rows of one method and target. Columns that are lists over layers hold the value of one layer.

        Images without a map at that layer are skipped.

        Args:
            method: As for `select`.
            target: As for `select`.
            layer: As for `select`.
            columns: The columns to read. Default: all.
        """
        from pyarrow.dataset import field as column

        method, target, layer = self.select(method, target, layer)
        names = None if columns is None else list(dict.fromkeys([*columns, "layers"]))
        per_layer = {*LAYER_COLUMNS, *CHECK_COLUMNS}
        where = (column("method") == method) & (column("target") == target)
        for batch in self.batches(columns=names, where=where):
            for row in batch.to_pylist():
                layers = row.pop("layers")
                if layer in layers:
                    index = layers.index(layer)
                    yield {name: value[index] if name in per_layer else value for name, value in row.items()}

    def maps(
        self, method: MethodChoice = None, target: str | int | None = None, layer: str | None = None
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Return the ids of the images and their signed maps at one layer.

        Args:
            method: As for `select`.
            target: As for `select`.
            layer: As for `select`.

        Returns:
            The ids, and the maps `(N, h, w)` in the units of the method.

        Raises:
            UsageError: The maps have different sizes.
        """
        ids, maps = [], []
        for row in self.rows(method, target, layer, ["id", *MAP_COLUMNS]):
            ids.append(row["id"])
            maps.append(decode_layer_map(row, self.store))
        if len({one.shape for one in maps}) > 1:
            folder = str(self.folder)
            raise UsageError(
                f"these maps have different sizes. Read them one by one: seewhy.read_run({folder!r}).rows()"
            )
        return ids, np.stack(maps)

    def to_pandas(
        self, method: MethodChoice = None, target: str | int | None = None, layer: str | None = None
    ) -> pandas.DataFrame:
        """Return a DataFrame with a row per image and the statistics of one layer as columns, without maps.

        Args:
            method: As for `select`.
            target: As for `select`.
            layer: As for `select`.
        """
        import pandas

        names = [name for name in self.schema.names if name not in ("shapes", "maps", "error", "layers")]
        layer = self.select(method, target, layer)[2]
        return pandas.DataFrame([{**row, "layer": layer} for row in self.rows(method, target, layer, names)])

    def __len__(self) -> int:
        from seewhy.bulk.part_reader import open_part

        return sum(open_part(path, self.job["fingerprint"]).metadata.num_rows for path in self.files)

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"{len(self.files)} of {self.job['settings']['parts']} parts"
        return f"<BulkRun {self.folder}: {len(self):,} rows, {state}>"


def not_a_run(folder: Path) -> UsageError:
    """Return the error for a path that is no run, with what the user may have meant."""
    if os.path.isfile(folder):
        parent, is_part = folder.parent, folder.name == JOB or folder.suffix == ".parquet"
        if is_part and (parent / JOB).exists():
            return UsageError(f"{folder} is a file of a bulk run. Pass its folder: {parent}")
        return UsageError(f"{folder} is a file, not a bulk run. Pass the folder that seewhy bulk wrote.")
    if (folder / RECORD).exists():
        return UsageError(f"{folder} is not a bulk run, but the explanation of one image: open {folder / REPORT}")
    if not os.path.lexists(folder):
        return UsageError(f"{folder}: no such folder. Pass the folder that seewhy bulk wrote.")
    return UsageError(f"{folder} is not a bulk run ({JOB} is missing). Pass the folder that seewhy bulk wrote.")


def read_run(folder: str | os.PathLike[str]) -> BulkRun:
    """Open the run that `seewhy bulk` or `explain_all` wrote into a folder.

    Args:
        folder: The output folder.

    Returns:
        The run. If it is not complete, it contains the images of the finished part files.

    Raises:
        UsageError: The folder contains no run, or one of another version of seewhy.

    Example:
        >>> read_run("nowhere")
        Traceback (most recent call last):
        seewhy.errors.UsageError: nowhere: no such folder. Pass the folder that seewhy bulk wrote.
    """
    return BulkRun.read(folder)


def source_paths(run: BulkRun) -> Iterator[str]:
    """Yield the paths of the run's own files and of its images: what no output may overwrite."""
    yield from map(str, [run.folder / JOB, *run.files])
    for batch in run.batches(columns=["path"]):
        yield from (path for path in batch["path"].to_pylist() if path)
