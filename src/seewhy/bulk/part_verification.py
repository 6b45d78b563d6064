"""Verify the finished parts of a job that resumes: a part counts as done only if all its rows can be read and are its own."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from seewhy.bulk.dataset import ListDataset, PartSource
from seewhy.bulk.job_record import JOB
from seewhy.bulk.part_reader import PartCounts, PartError, check_digest, check_footer, open_part, read_parts
from seewhy.bulk.plan import Plan
from seewhy.bulk.rows import row_schema
from seewhy.bulk.tars import TarDataset
from seewhy.errors import UsageError

KEYS = ["id", "method", "target"]  # identify a row


def verify_part(path: Path, plan: Plan, part: int, dataset: PartSource) -> PartCounts:
    """Read a part completely, a batch at a time, and return its counts. Raises PartError if it is not what the job would write.

    The pages are intact, the footer is that of this part, the rows are consistent and unique, and their images are those of the
    dataset, in order.
    """
    footer, counts = check_footer(path, open_part(path, plan.fingerprint).metadata, plan.fingerprint)
    if counts is None or footer.part != part:
        raise PartError(path, "the footer of this part is damaged")
    is_intact = check_digest(path, counts)
    if footer.layers and (footer.layers != list(plan.layers) or footer.methods != list(plan.methods)):
        # Not recomputed: if job.json was changed, all parts would be replaced.
        raise UsageError(f"{path} and {JOB} list different layers or methods. Restore {JOB}, or choose another folder.")
    columns = [*KEYS, "error"] if is_intact else None  # the maps are only decoded if no digest vouches for them
    rows = pa.Table.from_batches(
        [
            batch.select([*KEYS, "error"])
            for batch in read_parts(
                [path], plan.fingerprint, plan.settings.store, columns, schema=row_schema(plan.settings.check)
            )
        ],
        pa.schema([(name, pa.string()) for name in (*KEYS, "error")]),
    )
    if rows.group_by(KEYS).aggregate([]).num_rows < len(rows):
        raise PartError(path, "this part contains a row twice")
    ids = pc.run_end_encode(rows["id"].combine_chunks()).values.to_pylist() if len(rows) else []
    if len(ids) != counts.images or len(rows) - rows["error"].null_count != counts.failed:
        raise PartError(path, f"this part has {len(ids):,} images, and its footer declares {counts.images:,}")
    if not are_ids_of_part(ids, dataset, part):
        raise PartError(path, "this part contains other images than the dataset")
    return counts


def are_ids_of_part(ids: list[str], dataset: PartSource, part: int) -> bool:
    """Return True if these are the ids of a part. Of a tar file, which is not read again, only their prefix is known."""
    if isinstance(dataset, ListDataset):
        return ids == [item.id for item in dataset.part(part)]
    if isinstance(dataset, TarDataset):
        prefix = f"{dataset.names[part]}/"
        return len(set(ids)) == len(ids) and all(name.startswith(prefix) for name in ids)
    return True
