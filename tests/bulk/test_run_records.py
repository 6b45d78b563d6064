"""job.json, logs, locks and tables of images as untrusted input: each failure is one line, and no foreign file is changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

import seewhy
from seewhy.bulk import manifest
from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.export import Names
from seewhy.bulk.job_record import job_fingerprint
from seewhy.bulk.manifest import read_table
from seewhy.bulk.rows import cell_text
from seewhy.errors import UsageError
from support.bulk_jobs import start


@pytest.fixture
def out(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> Path:
    start(small, photos, tmp_path / "run")
    return tmp_path / "run"


def edit(out: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    job = json.loads((out / "job.json").read_text())
    change(job)
    (out / "job.json").write_text(json.dumps(job))


INVALID_JOBS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "batch_size: expected int, got str": lambda job: job.update(batch_size="4"),
    "batch_size: expected int >= 0": lambda job: job.update(batch_size=-1),
    "fingerprint: expected str matching": lambda job: job.update(fingerprint="../../x"),
    "fingerprint: it does not match the settings": lambda job: job["settings"].update(store="float16"),
    "object missing required field model": lambda job: job.pop("model"),
    r"layers\[0\]: expected str, got array": lambda job: job.update(layers=[["a"]]),
    r"layers\[0\]: expected str of length <= 65536": lambda job: job.update(layers=["a" * 70_000]),
    "versions": lambda job: job["model"].update(versions=[1]),
    "class": lambda job: job["model"].update({"class": None}),
    "settings": lambda job: job.update(settings=3),
    "images: expected int <= 9007199254740992": lambda job: job.update(images=10**30),
}


@pytest.mark.parametrize("reason", INVALID_JOBS)
def test_invalid_job_json_is_one_line_with_file_and_field(
    reason: str, out: Path, small: seewhy.LoadedModel, photos: Path
) -> None:
    edit(out, INVALID_JOBS[reason])
    content = (out / "job.json").read_bytes()
    for read in (lambda: BulkRun.read(out), lambda: start(small, photos, out)):
        with pytest.raises(UsageError, match=rf"job\.json cannot be read \(.*{reason}") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert (out / "job.json").read_bytes() == content


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": 1e999}', '{"format": "\\ud800"}', "\xff", "", "9" * 9999])
def test_job_json_that_is_not_valid_json_is_one_line(text: str, out: Path) -> None:
    (out / "job.json").write_text(text, "latin-1")
    with pytest.raises(UsageError, match=r"job\.json cannot be read") as caught:
        BulkRun.read(out)
    assert len(str(caught.value)) < 500


def test_job_json_that_is_a_loop_of_links_is_one_line(out: Path) -> None:
    (out / "job.json").unlink()
    (out / "job.json").symlink_to("job.json")
    with pytest.raises(UsageError, match=r"job\.json cannot be read"):
        BulkRun.read(out)


def test_number_of_parts_is_bounded(out: Path) -> None:
    def declare(job: dict[str, Any]) -> None:
        job["settings"]["parts"] = 10**12
        job["fingerprint"] = job_fingerprint(job["settings"])

    edit(out, declare)
    with pytest.raises(UsageError, match=r"settings: Expected int <= 999999999 .*parts"):
        BulkRun.read(out)


def test_parts_with_other_numbers_and_copies_are_ignored(out: Path) -> None:
    run = BulkRun.read(out)
    rows, first = len(run), run.files[0]
    for name in (first.name.replace("part-000000", "part-000007"), f"{first.stem} (copy).parquet"):
        shutil.copy(first, out / name)
    assert len(BulkRun.read(out)) == rows and BulkRun.read(out).complete


@pytest.mark.parametrize("name", ["log-0-of-1.jsonl", "locks/0-of-1.lock", "locks"])
def test_links_in_place_of_logs_and_locks_are_not_followed(
    name: str, out: Path, small: seewhy.LoadedModel, photos: Path, tmp_path: Path
) -> None:
    """A log that is a link appended events to the file of somebody else."""
    target = tmp_path / "foreign"
    path = out / name
    if name == "locks":
        target.mkdir()
        shutil.rmtree(path)
    else:
        target.write_text("mine")
        path.unlink(missing_ok=True)
    path.symlink_to(target)
    with pytest.raises(UsageError, match=r"did not write it|leads out of|is not a folder"):
        start(small, photos, out)
    assert list(target.iterdir()) == [] if name == "locks" else target.read_text() == "mine"


def test_locks_that_is_a_file_is_one_line(out: Path, small: seewhy.LoadedModel, photos: Path) -> None:
    shutil.rmtree(out / "locks")
    (out / "locks").write_text("mine")
    with pytest.raises(UsageError, match="locks is not a folder"):
        start(small, photos, out)


def test_foreign_files_among_the_locks_are_not_locked(out: Path, small: seewhy.LoadedModel, photos: Path) -> None:
    (out / "locks" / "notes.txt").write_text("mine")
    start(small, photos, out)
    assert (out / "locks" / "notes.txt").read_text() == "mine"


# Rows


def test_texts_of_rows_have_a_limit_and_are_unicode() -> None:
    assert cell_text("caf\udce9") == "caf\\udce9" and cell_text(None) is None
    assert len(cell_text("\U0001f600" * 10**6) or "") == 2**16


def test_repeated_and_long_ids_get_short_file_names() -> None:
    """The names of 240 images with the same id were too long for a file system."""
    used = Names()
    names = [used.png("a/b.png") for _ in range(300)]
    assert len(set(names)) == 300 and max(len(name.name) for name in names) < 30
    assert len(str(used.png("a/" * 3000))) < 100 and len(used.png("../../x").parts) == 3


# Tables of images


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "missing"])
def test_tables_that_are_no_regular_files_are_one_line(kind: str, name: str, tmp_path: Path) -> None:
    """A pipe in place of a table blocked until somebody wrote to it."""
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(UsageError, match="this table cannot be read") as caught:
        read_table(str(path))
    assert "\n" not in str(caught.value)


TABLES: dict[str, bytes] = {
    "latin-1": b"path\ncaf\xe9.jpg\n",
    "utf-16": "path\na.jpg\n".encode("utf-16"),
    "empty": b"",
    "many columns": b"path," + b",".join(b"c%d" % number for number in range(20_000)) + b"\na\n",
    "two paths": b"path,path\na,b\n",
    "ragged": b"path,label\na\nb,c,d\n",
    "open quote": b'path,label\n"a,b\nc,d\n',
    "long cell": b"path\n" + b"x" * 20_000 + b"\n",
    "binary": bytes(range(256)) * 10,
    "no path": b"x,y\n1,2\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_that_cannot_be_used_are_one_short_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(TABLES[kind])
    with pytest.raises(UsageError) as caught:
        read_table(str(path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600 and "table.csv" in str(caught.value)


def test_cells_of_tables_may_contain_anything(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    boxes = '"' + "[" * 5000 + '"'
    path.write_bytes(b'path,label,boxes\n"a\nb.png","x\ny",\n\0.png,\x1b[2J,' + boxes.encode() + b"\n")
    items = read_table(str(path))[0]
    assert items[0].id == "a\nb.png" and items[0].label == "x\ny"
    assert items[1].error is not None and len(items[1].error) < 400


def test_parquet_table_with_invalid_text_or_too_many_rows_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.parquet"
    buffers = pa.array([b"\xff"]).buffers()
    parquet.write_table(pa.table({"path": pa.StringArray.from_buffers(1, buffers[1], buffers[2])}), path)
    with pytest.raises(UsageError, match="this table cannot be read"):
        read_table(str(path))
    monkeypatch.setattr(manifest, "MAX_CELLS", 100)
    parquet.write_table(pa.table({"path": pa.nulls(101, pa.string())}), path)
    with pytest.raises(UsageError, match="it declares 101 rows"):
        read_table(str(path))
