"""Part files that are damaged, swapped or hostile: readers name the file, and a resumed job computes them again."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from seewhy.bulk import page_headers, part_reader
from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.export import KINDS, export
from seewhy.bulk.page_headers import check_pages
from seewhy.bulk.part_reader import PartError
from seewhy.bulk.row_checks import LAYER_LISTS, InvalidRows
from seewhy.errors import UsageError
from seewhy.summary import write_comparison, write_summary
from support.bulk_jobs import load_small, part_contents, read_notes, start
from support.command import run as run_command

MANY = 1_000_000


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos and a finished run of three parts."""
    import numpy as np
    from PIL import Image

    home = tmp_path_factory.mktemp("finished")
    generator = np.random.default_rng(0)
    for number in range(10):
        path = home / "photos" / ("ant" if number % 2 else "bee") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 48, 3), np.uint8)).save(path)
    (home / "photos" / "ant" / "broken.png").write_bytes(b"no")
    start(load_small(), home / "photos", home / "run")
    return home


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> BulkRun:
    shutil.copytree(finished / "run", tmp_path / "run")
    return BulkRun.read(tmp_path / "run")


def flip_data(path: Path) -> None:
    """Change one byte of a page; the footer stays intact."""
    content = bytearray(path.read_bytes())
    offset = parquet.read_metadata(path).row_group(0).column(0).data_page_offset
    content[offset + 40] ^= 1
    path.write_bytes(content)


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], Any], schema: pa.Schema | None = None) -> None:
    """Change the rows of a part and write it with the same footer, as a program that edits it would."""
    table, metadata = parquet.read_table(path), parquet.read_metadata(path).metadata
    rows = table.to_pylist()
    change(rows)
    kept = {key: value for key, value in metadata.items() if key != b"ARROW:schema"}
    new = pa.Table.from_pylist(rows, schema or table.schema)
    parquet.write_table(new.replace_schema_metadata(kept), path)


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


DAMAGE: dict[str, Callable[[list[Path]], Any]] = {
    "flipped byte in a page": lambda files: flip_data(files[0]),
    "truncated": lambda files: files[0].write_bytes(files[0].read_bytes()[:-200]),
    "empty": lambda files: files[0].write_bytes(b""),
    "swapped": lambda files: swap(files[0], files[1]),
    "copy of another part": lambda files: shutil.copy(files[0], files[1]),
    "duplicate row": lambda files: rewrite(files[0], lambda rows: rows.append(rows[0])),
    "missing row": lambda files: rewrite(files[0], lambda rows: rows.pop()),
    "other image": lambda files: rewrite(files[0], lambda rows: rows[0].update(id="other.png")),
    "other value": lambda files: rewrite(files[0], lambda rows: rows[0].update(score=7.0)),
    "other order": lambda files: rewrite(files[0], lambda rows: rows.reverse()),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_part_is_computed_again(kind: str, finished: Path, run: BulkRun) -> None:
    """A part counted as done if its footer was intact."""
    before = part_contents(run.folder)
    DAMAGE[kind](run.files)
    assert part_contents(run.folder) != before
    start(load_small(), finished / "photos", run.folder)
    assert part_contents(run.folder) == before
    notes = [note for note in read_notes(run.folder) if note.endswith("Computing this part again")]
    assert len(notes) == (2 if kind == "swapped" else 1) and all(note.startswith("part-00000") for note in notes)
    start(load_small(), finished / "photos", run.folder)
    assert len([note for note in read_notes(run.folder) if "Computing this part again" in note]) == len(notes)


def test_part_of_an_earlier_version_without_checksums_is_kept(finished: Path, run: BulkRun) -> None:
    path = run.files[0]
    metadata = parquet.read_metadata(path).metadata
    old = {b"seewhy": metadata[b"seewhy"], b"seewhy.part": b'{"images": 4, "failed": 0}'}
    parquet.write_table(parquet.read_table(path).replace_schema_metadata(old), path, compression="zstd")
    content = path.read_bytes()
    assert start(load_small(), finished / "photos", run.folder).images == 0
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"my own notes", None])
def test_foreign_file_with_the_name_of_a_part_is_not_overwritten(
    content: bytes | None, finished: Path, run: BulkRun
) -> None:
    path = run.files[0]
    if content is None:
        parquet.write_table(pa.table({"mine": [1]}), path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"part-000000-of-000003.*seewhy did not write it. Move it to another folder"):
        start(load_small(), finished / "photos", run.folder)
    assert path.read_bytes() == before


READERS: dict[str, Callable[[BulkRun, Path], Any]] = {
    "table": lambda run, out: run.table,
    "rows": lambda run, out: list(run.rows()),
    "maps": lambda run, out: run.maps(),
    "batches": lambda run, out: list(run.batches()),
    "failed": lambda run, out: run.failed,
    "contents": lambda run, out: run.contents,
    "len": lambda run, out: len(run),
    "dataset": lambda run, out: run.dataset,
    "summary": lambda run, out: write_summary(run, out),
    "comparison": lambda run, out: write_comparison(run, run, out),
    **{kind: lambda run, out, kind=kind: export(run, out, kind) for kind in KINDS},
}


@pytest.mark.parametrize("reader", READERS)
def test_readers_name_the_damaged_part_and_what_to_do(reader: str, run: BulkRun, tmp_path: Path) -> None:
    """Readers ended in a traceback that named no file."""

    path = run.files[1]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(
        PartError, match="Run the same seewhy bulk command again: it computes this part again"
    ) as caught:
        READERS[reader](BulkRun.read(run.folder), tmp_path / "out")
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


INVALID_VALUES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "layers is empty": lambda row: row.update({name: [] for name in LAYER_LISTS}),
    "numbers of layers": lambda row: row.update(layers=["a", "b"]),
    "another number of bytes": lambda row: row.update(maps=[b"x"]),
    "shapes has a size": lambda row: row.update(shapes=[[2**31 - 1, 2**31 - 1]]),
    "shapes does not have 2": lambda row: row.update(shapes=[[8]]),
    "lo is missing": lambda row: row.update(lo=[1.0]),
    "hi is missing": lambda row: row.update(hi=[float("inf")]),
    "view does not have 4": lambda row: row.update(view=[0.0, 1.0]),
    "view is not left": lambda row: row.update(view=[5.0, 0.0, 1.0, 9.0]),
    "view is not left, top": lambda row: row.update(view=[0.0, 0.0, 1e-30, 1e-30]),
    "input has a size": lambda row: row.update(input=[2**20, 2**20]),
    "width has a value": lambda row: row.update(width=0),
    "predicted has a value": lambda row: row.update(predicted=-5),
    "border has a value": lambda row: row.update(border=[9.0]),
    "confidence has a value": lambda row: row.update(confidence=2.0),
    "id is missing": lambda row: row.update(id=None),
    "method does not fit": lambda row: row.update(method=None),
    "maps is missing": lambda row: row.update(maps=[None]),
    "unknown flag": lambda row: row.update(flags=[["x"]]),
    "label has a text": lambda row: row.update(label="x" * MANY),
}


@pytest.mark.parametrize("reason", INVALID_VALUES)
def test_invalid_values_are_found(reason: str, run: BulkRun) -> None:
    """The rows of small parts are checked together, and the error still names the file."""
    rewrite(run.files[1], lambda rows: INVALID_VALUES[reason](rows[0]))
    with pytest.raises(PartError, match=f"part-000001.*this part is damaged .*{reason}"):
        BulkRun.read(run.folder).table  # noqa: B018


def test_text_that_is_not_unicode_is_found(run: BulkRun) -> None:
    path = run.files[0]
    table, metadata = parquet.read_table(path), parquet.read_metadata(path).metadata
    buffers = pa.array([b"\xff\xfe"] * len(table)).buffers()
    broken = pa.StringArray.from_buffers(len(table), buffers[1], buffers[2])
    new = table.set_column(0, table.schema.field("id"), broken)
    parquet.write_table(new.replace_schema_metadata({b"seewhy": metadata[b"seewhy"]}), path)
    with pytest.raises(PartError, match="Invalid UTF8"):
        BulkRun.read(run.folder).table  # noqa: B018


def test_columns_of_another_type_are_found(run: BulkRun) -> None:
    path = run.files[0]
    table = parquet.read_table(path)
    footer = {b"seewhy": parquet.read_metadata(path).metadata[b"seewhy"]}
    changed = {
        "width": table.set_column(4, "width", table["width"].cast(pa.int64())),
        "label": table.set_column(8, "label", table["label"].dictionary_encode()),
        "border": table.drop_columns(["border"]),
        "extra": table.append_column("extra", table["id"]),
    }
    for name, new in changed.items():
        parquet.write_table(new.replace_schema_metadata(footer), path)
        with pytest.raises(PartError, match=f"its columns differ: {name}"):
            BulkRun.read(run.folder).table  # noqa: B018


def test_footer_that_declares_too_many_values_is_refused_before_decoding(
    run: BulkRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """546 bytes became gigabytes of nulls."""
    monkeypatch.setattr(part_reader, "MAX_VALUES", MANY)
    path = run.files[0]
    table = parquet.read_table(path)
    names = {name: [None] if pa.types.is_list(table.schema.field(name).type) else None for name in table.column_names}
    row = {**names, "id": "a", "path": "a", "flags": [None] * (MANY + 1)}
    footer = {b"seewhy": parquet.read_metadata(path).metadata[b"seewhy"]}
    parquet.write_table(
        pa.Table.from_pylist([row], table.schema).replace_schema_metadata(footer), path, compression="zstd"
    )
    assert path.stat().st_size < 50_000
    with pytest.raises(PartError, match=r"flags\.list\.element\.list\.element declares"):
        len(BulkRun.read(run.folder))


def test_page_header_that_declares_more_values_than_the_footer_is_found() -> None:
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"a": pa.array([[None] * MANY], pa.list_(pa.int32()))}), buffer)
    content = bytearray(buffer.getvalue())
    check_pages(io.BytesIO(content), len(content), parquet.read_metadata(io.BytesIO(content)).row_group(0).column(0))
    footer = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    declared = bytes([2 * MANY & 127 | 128, 2 * MANY >> 7 & 127 | 128, 2 * MANY >> 14])
    place = content.index(declared, footer)
    content[place : place + 3] = bytes([2 | 128, 128, 0])  # one value, in three bytes
    column = parquet.read_metadata(io.BytesIO(content)).row_group(0).column(0)
    assert column.num_values == 1
    with pytest.raises(InvalidRows, match=f"{MANY:,} values"):
        check_pages(io.BytesIO(content), len(content), column)


def header_result(read: Callable[[], tuple[object, ...]]) -> object:
    try:
        return read()
    except (InvalidRows, IndexError, KeyError, TypeError, StopIteration):
        return "invalid"


def parse_header(data: bytes) -> tuple[object, ...]:
    """Parse a page header without the regular expression."""
    fields, end = page_headers.read_fields(data, 0)
    is_dictionary = page_headers.DICTIONARY_PAGE in fields
    return is_dictionary, end, fields[2], fields[3], page_headers.page_values(fields)


def test_regular_expression_for_page_headers_agrees_with_the_parser(run: BulkRun) -> None:
    """On the headers that Arrow writes, and on 3,000 damaged ones."""
    content = run.files[0].read_bytes()
    group = parquet.read_metadata(run.files[0]).row_group(0)
    headers = []
    for column in map(group.column, range(group.num_columns)):
        start, second = column.dictionary_page_offset or column.data_page_offset, column.data_page_offset
        headers += [content[start : start + 400], content[second : second + 400]]
    assert sum(page_headers.USUAL_PAGE.match(header) is not None for header in headers) > 0.9 * len(headers)
    generator = random.Random(0)
    matched = 0
    for number in range(3000):
        data = bytearray(headers[number % len(headers)])
        for _ in range(number // len(headers) and generator.randint(1, 3)):
            data[generator.randrange(40)] = generator.choice(
                (0, 0x11, 0x15, 0x18, 0x1C, 0x28, 0x80, generator.randrange(256))
            )
        expected = header_result(lambda data=bytes(data): parse_header(data))
        assert header_result(lambda data=bytes(data): page_headers.read_page(io.BytesIO(data), 0)) == expected
        matched += page_headers.USUAL_PAGE.match(data) is not None
    assert 500 < matched < 2800


def test_file_that_is_truncated_while_its_page_headers_are_read() -> None:
    """A memory map would end the process with SIGBUS."""
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"a": list(range(100))}), buffer)
    column = parquet.read_metadata(buffer).row_group(0).column(0)
    size = len(buffer.getvalue())
    buffer.truncate(20)
    with pytest.raises(InvalidRows, match="a page header of a"):
        check_pages(buffer, size, column)


def test_unknown_columns_are_named(run: BulkRun) -> None:
    with pytest.raises(UsageError, match=r"columns or where: .*nonsense"):
        list(run.batches(["nonsense"]))


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES, errno.ENOENT])
def test_a_disk_that_fails_does_not_replace_finished_parts(
    run: BulkRun, finished: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A network drive that is gone for a moment counted as damage, and good parts were computed again."""
    before = {path.name: path.read_bytes() for path in run.files}

    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(part_reader, "regular_status", fail)
    with pytest.raises(UsageError, match=r"part-.* cannot be read .*when this is solved"):
        start(load_small(), finished / "photos", run.folder)
    assert {path.name: path.read_bytes() for path in run.files} == before


def test_a_lock_with_the_number_of_a_process_is_a_lock(run: BulkRun, finished: Path) -> None:
    """On file systems without locks, filelock writes the process into the file; after a kill, no job could resume."""
    lock = run.folder / "locks" / "0-of-1.lock"
    lock.write_text("12345\nhost\n")
    start(load_small(), finished / "photos", run.folder)
    lock.write_text("notes of somebody")
    with pytest.raises(UsageError, match="did not write it"):
        start(load_small(), finished / "photos", run.folder)


def test_an_incomplete_run_is_a_note(run: BulkRun, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An export of two of three parts ended without a word about the third."""
    run.files[0].unlink()
    code, _, err = run_command(capsys, "export", str(run.folder), "--to", "npz", "--out", str(tmp_path / "out"))
    assert code == 0 and "is incomplete (2 of 3 parts). To complete it, run the same seewhy bulk command again." in err
