"""Random damage to the folder of a bulk run, to check that every reader ends in a result or in one line."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

Edit = Callable[[Path, random.Random], str]
NUMBERS = (0, 1, -1, 2, 255, 2**15, 2**31 - 1, -(2**31), 2**53, 10**20, 0.5, -0.5, 1e30, 1e-30, 3.4e38)
FLOATS = (float("nan"), float("inf"), float("-inf"), *NUMBERS)
TEXTS = (
    "", "x", "../../../etc/passwd", "/dev/zero", "/etc/passwd", "a\0b", "\x1b[2J", "<script>alert(1)</script>", "x" * 5000,
    "\u202e\u4e2d\u6587", "=1+1", "a/" * 3000, "gradcam(", "smooth(" * 200, "x" * 300_000, "\ud800", "nan", "[red]x[/]",
)  # fmt: skip
VALUES: tuple[Any, ...] = (None, True, *NUMBERS, *TEXTS, [], {}, [[]], [None], {"a": {}}, [1] * 1000)


def tamper_run(folder: Path, generator: random.Random) -> str:
    """Apply one random change to the folder of a finished run, and return its description."""
    edits = (
        (edit_job, 4), (damage_bytes, 3), (rewrite_part, 8), (edit_footer, 2), (move_parts, 2), (replace_file, 2),
        (add_file, 1), (damage_logs_and_locks, 1),
    )  # fmt: skip
    edit = generator.choices([one for one, _ in edits], [weight for _, weight in edits])[0]
    return f"{edit.__name__}: {edit(folder, generator)}"


def part_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


# job.json


def edit_job(folder: Path, generator: random.Random) -> str:
    path = folder / "job.json"
    if generator.random() < 0.2:
        texts = (
            b"", b"{}", b"null", b"[" * 100_000, b'{"format": 2}', b"\xff\xfe", b'{"format": 2, "format": 3}', b"\0" * 100,
            b'{"a":' * 50_000, path.read_bytes()[: generator.randrange(2000)], b'{"format": 1e999}', b"9" * 10_000,
        )  # fmt: skip
        path.write_bytes(generator.choice(texts))
        return "text"
    job = json.loads(path.read_text())
    place: Any = job
    keys: list[Any] = []
    while True:
        key = generator.choice(list(place) if isinstance(place, dict) else list(range(len(place))))
        keys.append(key)
        if not isinstance(place[key], dict | list) or not place[key] or generator.random() < 0.3:
            break
        place = place[key]
    action = generator.choice(("delete", "replace", "replace", "rename"))
    if action == "delete":
        del place[key]
    elif action == "rename" and isinstance(place, dict):
        place[generator.choice(TEXTS)] = place.pop(key)
    else:
        place[key] = generator.choice(VALUES)
    if generator.random() < 0.5 and isinstance(job.get("settings"), dict):
        from seewhy.bulk.job_record import job_fingerprint

        if generator.random() < 0.3:
            job["settings"][generator.choice(("parts", "store", "part_size"))] = generator.choice(VALUES)
        old, job["fingerprint"] = job.get("fingerprint"), job_fingerprint(job["settings"])
        if isinstance(old, str) and generator.random() < 0.7:
            for part in part_paths(folder):
                if job["fingerprint"] != old and old in part.name:
                    replace_footer(part, lambda footer: footer | {"fingerprint": job["fingerprint"]})
                    part.rename(part.with_name(part.name.replace(old, job["fingerprint"])))
    path.write_text(json.dumps(job))
    return f"{action} {keys}"


# Bytes


def damage_bytes(folder: Path, generator: random.Random) -> str:
    path = generator.choice(part_paths(folder))
    data = bytearray(path.read_bytes())
    kind = generator.choice(("flip", "flips", "truncate", "zeros", "insert", "footer flips", "grow"))
    if kind in ("flip", "flips", "footer flips"):
        start = 0 if kind != "footer flips" else max(0, len(data) - 14_000)
        for _ in range(1 if kind == "flip" else 20):
            data[generator.randrange(start, len(data))] ^= 1 << generator.randrange(8)
    elif kind == "truncate":
        del data[generator.randrange(len(data)) :]
    elif kind == "zeros":
        start = generator.randrange(len(data))
        data[start : start + 4096] = bytes(len(data[start : start + 4096]))
    elif kind == "insert":
        start = generator.randrange(len(data))
        data[start:start] = generator.randbytes(generator.randrange(1, 100))
    else:
        data += generator.randbytes(100)
    path.write_bytes(data)
    return f"{kind} {path.name[:11]}"


# Values


def change_value(value: Any, kind: pa.DataType, generator: random.Random) -> Any:
    """Return another value that fits an Arrow type."""
    if pa.types.is_list(kind):
        values = list(value or [])
        action = generator.choice(("inner", "inner", "inner", "null", "empty", "longer", "shorter", "bomb"))
        if action == "null":
            return None
        if action == "empty":
            return []
        if action == "longer":
            return [*values, *values[:1]]
        if action == "bomb":
            return [values[0] if values else None] * 100_000
        if action == "shorter" or not values:
            return values[:-1]
        place = generator.randrange(len(values))
        values[place] = change_value(values[place], kind.value_type, generator)
        return values
    if generator.random() < 0.15:
        return None
    if pa.types.is_string(kind):
        return generator.choice([text for text in TEXTS if text != "\ud800"])
    if pa.types.is_binary(kind):
        data = value or b""
        return generator.choice((b"", data[:-1], data + b"\0", data * 2, bytes(len(data)), b"\xff" * len(data)))
    if pa.types.is_integer(kind):
        limit = 2 ** (kind.bit_width - 1)
        return max(-limit, min(limit - 1, int(generator.choice(NUMBERS))))
    return float(generator.choice(FLOATS))


def rewrite_part(folder: Path, generator: random.Random) -> str:
    path = generator.choice(part_paths(folder))
    table = parquet.read_table(path)
    schema = table.schema
    changes = ("column", "drop", "extra", "type", "rows", "dictionary", "nested", "empty", "text", "bomb")
    action = generator.choice(("values", "values", "values", *changes))
    detail = ""
    if action in ("values", "column"):
        field = schema.field(generator.choice(schema.names))
        values = table[field.name].to_pylist()
        which = range(len(values)) if action == "column" else [generator.randrange(len(values))]
        new = change_value(values[which[0]], field.type, generator)
        for row in which:
            values[row] = new
        table = table.set_column(schema.names.index(field.name), field, pa.array(values, field.type))
        detail = f"{field.name} = {str(new)[:40]}"
    elif action == "drop":
        detail = generator.choice(schema.names)
        table = table.drop_columns([detail])
    elif action == "extra":
        table = table.append_column(generator.choice(("extra", "id", "../x")), pa.nulls(len(table), pa.int64()))
    elif action == "type":
        detail = generator.choice(schema.names)
        table = change_type(table, detail, generator)
    elif action == "rows":
        rows = list(range(len(table)))
        generator.choice((rows.reverse, rows.pop, lambda: rows.append(0), lambda: rows.extend(rows)))()
        table, detail = table.take(rows), f"{len(rows)} rows"
    elif action == "dictionary":
        detail = generator.choice([field.name for field in schema if pa.types.is_string(field.type)])
        table = table.set_column(schema.names.index(detail), detail, table[detail].dictionary_encode())
    elif action == "nested":
        kind: pa.DataType = pa.int32()
        for _ in range(generator.randrange(1, 40)):
            kind = pa.list_(kind)
        table = table.set_column(0, generator.choice(("id", "deep")), pa.nulls(len(table), kind))
    elif action == "empty":
        table = table.slice(0, 0)
    elif action == "text":  # not UTF-8
        detail = generator.choice([field.name for field in schema if pa.types.is_string(field.type)])
        broken = pa.array([b"\xff\xfe"] * len(table), pa.binary())
        column = pa.StringArray.from_buffers(len(table), broken.buffers()[1], broken.buffers()[2])
        table = table.set_column(schema.names.index(detail), schema.field(detail), column)
    else:  # a few kilobytes that expand to gigabytes
        table = pa.concat_tables([table] * 500)
    metadata = parquet.read_metadata(path).metadata or {}
    kept = {key: value for key, value in metadata.items() if key != b"ARROW:schema"}
    if b"seewhy.part" in kept and generator.random() < 0.5:
        counts = json.loads(kept[b"seewhy.part"])
        kept[b"seewhy.part"] = json.dumps(counts | {"rows": len(table)}).encode()
    checksums = generator.random() < 0.5
    compression = generator.choice(("zstd", "none", "snappy", "gzip"))
    try:
        parquet.write_table(
            table.replace_schema_metadata(kept), path, compression=compression, write_page_checksum=checksums,
            data_page_version=generator.choice(("1.0", "2.0")),
        )  # fmt: skip
    except pa.ArrowException:
        return f"{action} {detail}: cannot be written"
    return f"{action} {detail}"


def change_type(table: pa.Table, name: str, generator: random.Random) -> pa.Table:
    place = table.column_names.index(name)
    kinds = (pa.string(), pa.int64(), pa.float64(), pa.binary(), pa.large_string(), pa.bool_(), pa.timestamp("ns"))
    kind = generator.choice(kinds)
    try:
        column = table[name].cast(kind)
    except pa.ArrowException:
        column = pa.nulls(len(table), kind)
    return table.set_column(place, name, column)


def edit_footer(folder: Path, generator: random.Random) -> str:
    path = generator.choice(part_paths(folder))
    key = generator.choice(("fingerprint", "part", "layers", "methods", "settings", "counts", "text"))
    value = generator.choice(VALUES)
    if key == "text":
        text = generator.choice((b"", b"null", b"\xff", b"[" * 100_000, b"{}", b"3"))
        replace_footer(path, lambda footer: footer, text)
    elif key == "counts":
        counts = generator.choice(
            (b"{}", b'{"images": -1, "failed": 0}', b'{"images": 1e99, "failed": "x"}', b"[", b"null")
        )
        replace_footer(path, lambda footer: footer, counts=counts)
    else:
        replace_footer(path, lambda footer: footer | {key: value})
    return f"{key} = {str(value)[:40]}"


def replace_footer(
    path: Path, change: Callable[[dict[str, Any]], Any], text: bytes | None = None, counts: bytes | None = None
) -> None:
    try:
        table = parquet.read_table(path)
        metadata = dict(parquet.read_metadata(path).metadata)
        footer = change(json.loads(metadata[b"seewhy"]))
    except (OSError, pa.ArrowException, ValueError, KeyError):  # an earlier change damaged it
        return
    metadata.pop(b"ARROW:schema", None)
    metadata[b"seewhy"] = json.dumps(footer).encode() if text is None else text
    if counts is not None:
        metadata[b"seewhy.part"] = counts
    parquet.write_table(table.replace_schema_metadata(metadata), path, compression="zstd", write_page_checksum=True)


# Files


def move_parts(folder: Path, generator: random.Random) -> str:
    one, other, *_ = generator.sample(part_paths(folder), 2)
    kind = generator.choice(("swap", "copy", "delete", "other number", "other job", "copy next to it"))
    if kind == "swap":
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif kind == "copy":
        shutil.copy(one, other)
    elif kind == "delete":
        one.unlink()
    elif kind == "other number":
        one.rename(one.with_name(f"part-{generator.choice(('000007', '999999', '00001', 'x'))}{one.name[11:]}"))
    elif kind == "other job":
        shutil.copy(one, one.with_name(one.name.replace(one.name.split(".")[1], "0123456789ab")))
    else:
        shutil.copy(one, one.with_name(f"{one.name[:-8]} (copy).parquet"))
    return kind


def replace_file(folder: Path, generator: random.Random) -> str:
    path = generator.choice([*part_paths(folder), folder / "job.json"])
    links = ("link to a device", "link to itself", "broken link", "link")
    kind = generator.choice(("pipe", "folder", *links, "empty", "text", "sparse"))
    saved = path.with_name("saved")
    path.rename(saved)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a part\n" * 100)
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.truncate(2**36)
    else:
        targets = {
            "link to a device": "/dev/zero",
            "link to itself": path.name,
            "broken link": "nowhere",
            "link": "saved",
        }
        path.symlink_to(targets[kind])
    return f"{kind} {path.name[:11]}"


def add_file(folder: Path, generator: random.Random) -> str:
    names = ("part-1.parquet", "part-x", "notes.txt", "part-000000-of-000002.parquet", ".part-x.tmp", "summary")
    name = generator.choice(names)
    path = folder / name
    generator.choice((path.touch, path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")))()
    return name


def damage_logs_and_locks(folder: Path, generator: random.Random) -> str:
    log, locks = folder / "log-0-of-1.jsonl", folder / "locks"
    lock = locks / "0-of-1.lock"
    actions: dict[str, Callable[[], Any]] = {
        "log text": lambda: log.write_bytes(b"\xff\0[" * 99),
        "log pipe": lambda: (log.unlink(), os.mkfifo(log)),
        "log link": lambda: (log.unlink(), log.symlink_to("job.json")),
        "log folder": lambda: (log.unlink(), log.mkdir()),
        "locks file": lambda: (shutil.rmtree(locks), locks.touch()),
        "locks link": lambda: (shutil.rmtree(locks), locks.symlink_to("..")),
        "lock link": lambda: (lock.unlink(missing_ok=True), lock.symlink_to("../job.json")),
        "lock folder": lambda: (lock.unlink(missing_ok=True), lock.mkdir()),
        "lock pipe": lambda: (lock.unlink(missing_ok=True), os.mkfifo(lock)),
        "other locks": lambda: [(locks / name).touch() for name in ("x", "1-of-x.lock", "-of-.lock", "0-of-2.lock")],
    }
    name = generator.choice(list(actions))
    actions[name]()
    return name
