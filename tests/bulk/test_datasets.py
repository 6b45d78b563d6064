"""Datasets from folders, lists, tables and tar files, valid and damaged, and the classes of their labels."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import random
import sys
import tarfile
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from seewhy.bulk.dataset import Dataset, Item, ListDataset, with_unique_ids
from seewhy.bulk.discovery import find_dataset
from seewhy.bulk.label_resolver import LabelResolver
from seewhy.bulk.manifest import parse_boxes, read_table
from seewhy.bulk.tars import TarDataset, expand_braces, members
from seewhy.errors import ImageError, UnknownName, UsageError
from seewhy.images.discovery import find_images, walk_images
from seewhy.storage.paths import path_text

E_ACUTE = "é"
BYTES = os.fsdecode(b"caf\xe9.jpg")  # a name that is not UTF-8


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def png(level: int = 9) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def all_items(dataset: Dataset) -> list[Item]:
    return [item for part in range(dataset.parts) for item in dataset.part(part)]


def find_items(*inputs: Any) -> list[Item]:
    return all_items(find_dataset([str(path) for path in inputs], 100))


def find_labels(*inputs: Any) -> dict[str, str | None]:
    """Return the label of each id, in order."""
    return {item.id: item.label for item in find_items(*inputs)}


def make_unlistable(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make listing `folder` fail with a permission error, even for root."""

    def refusing(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(path: Any = ".") -> Any:
            if os.path.abspath(path) == str(folder):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return original(path)

        return call

    monkeypatch.setattr(os, "listdir", refusing(os.listdir))
    monkeypatch.setattr(os, "scandir", refusing(os.scandir))


# Items


def test_ids_are_unique() -> None:
    names = ["a", "a", "a#2", "a", "a#2", "b"]
    ids = [item.id for item in with_unique_ids([Item(name, name) for name in names])]
    assert ids == ["a", "a#2", "a#2#2", "a#3", "a#2#3", "b"]


def test_parts_contain_every_item_once_in_order() -> None:
    items = ListDataset([Item(str(n), str(n)) for n in range(7)], 3)
    assert (items.count, items.parts) == (7, 3)
    assert [[item.id for item in items.part(n)] for n in range(3)] == [list("012"), list("345"), ["6"]]
    assert ListDataset(items.items[:6], 3).parts == 2


# Folders


def test_folder_names_are_labels_and_the_order_is_fixed(tmp_path: Path) -> None:
    for name in ("dog/2.jpg", "dog/10.JPG", "cat/1.png", "cat/deep/er/3.webp", "cat/notes.txt", "bird/data.csv"):
        put(tmp_path / name)
    items = find_dataset([str(tmp_path)], 100)
    assert [(item.id, item.label) for item in all_items(items)] == [
        ("cat/1.png", "cat"), ("cat/deep/er/3.webp", "cat"), ("dog/10.JPG", "dog"), ("dog/2.jpg", "dog"),
    ]  # fmt: skip
    assert all(item.has_folder_label and Path(item.path).exists() for item in all_items(items))
    assert items.labels == ["cat", "dog"] and items.notes == (f"labels: the folder names in {tmp_path}",)


def test_image_in_the_root_disables_folder_labels(tmp_path: Path) -> None:
    put(tmp_path / "cat" / "1.jpg")
    put(tmp_path / "0.jpg")
    items = find_dataset([str(tmp_path)], 100)
    assert [(item.id, item.label, item.has_folder_label) for item in all_items(items)] == [
        ("0.jpg", None, False), ("cat/1.jpg", None, False),
    ]  # fmt: skip
    assert items.notes == () and items.labels == []


def test_hidden_files_are_skipped_unless_the_root_is_hidden(tmp_path: Path) -> None:
    put(tmp_path / ".root" / "a" / "1.jpg")
    for name in (".thumbnails/2.jpg", "a/.3.jpg", "a/._1.jpg", ".4.jpg"):
        put(tmp_path / ".root" / name)
    assert list(find_labels(tmp_path / ".root")) == ["a/1.jpg"]


def test_names_in_both_unicode_forms_and_not_utf8(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, f"caf{E_ACUTE}.jpg") for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    for name in names:
        put(tmp_path / "in" / name)
    put(tmp_path / "in" / BYTES)
    put(tmp_path / "in" / "caf\\xe9.jpg")  # the same text as the escaped third name
    items = find_items(tmp_path)
    assert {item.id for item in items} == {*(f"in/{name}" for name in names), "in/caf\\xe9.jpg", "in/caf\\xe9.jpg#2"}
    assert all(os.path.isfile(item.path) for item in items)
    for item in items:
        item.id.encode()  # valid UTF-8
    assert {os.fsencode(item.path)[-8:] for item in items} >= {b"caf\xe9.jpg"}
    assert path_text(BYTES) == "caf\\xe9.jpg"


def test_label_that_is_not_utf8(tmp_path: Path) -> None:
    put(tmp_path / os.fsdecode(b"caf\xe9") / "1.jpg")
    assert find_labels(tmp_path) == {"caf\\xe9/1.jpg": "caf\\xe9"}
    listed = put(tmp_path / "list.txt", b"f\xe9.jpg\tcaf\xe9\n")
    (item,) = find_items(listed)
    assert (item.id, item.label) == ("f\\xe9.jpg", "caf\\xe9")
    assert os.fsencode(item.path).endswith(b"/f\xe9.jpg")
    pa.array([item.id, item.label], pa.string())  # Arrow rejects lone surrogates


def test_folders_with_the_same_file_names(tmp_path: Path) -> None:
    for root in ("first", "second"):
        put(tmp_path / root / "cat" / "1.jpg")
    items = find_items(tmp_path / "first", tmp_path / "second", tmp_path / "first")
    assert [item.id for item in items] == ["cat/1.jpg", "cat/1.jpg#2", "cat/1.jpg#3"]
    assert [Path(item.path).parts[-3] for item in items] == ["first", "second", "first"]


def test_links(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "x" / "9.jpg")
    real = put(tmp_path / "in" / "a" / "1.jpg")
    (tmp_path / "in" / "a" / "2.jpg").symlink_to(real)
    (tmp_path / "in" / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "in" / "a" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "other").symlink_to(tmp_path / "elsewhere")
    assert list(find_labels(tmp_path / "in")) == ["a/1.jpg", "a/2.jpg", "a/gone.jpg", "a/loop.jpg"]
    (tmp_path / "root").symlink_to(tmp_path / "elsewhere")  # a root given by the user is followed
    assert find_labels(tmp_path / "root") == {"x/9.jpg": "x"}


def test_pipe_is_listed_but_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    assert list(find_labels(tmp_path)) == ["x.jpg"]


def test_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "cat" / "1.jpg")
    (tmp_path / "secret").mkdir()
    make_unlistable(monkeypatch, tmp_path / "secret")
    items = find_items(tmp_path)
    assert [(item.id, item.label, item.error) for item in items] == [
        ("cat/1.jpg", "cat", None),
        ("secret", None, "cannot list this folder: permission denied"),
    ]
    (only,) = find_items(tmp_path / "secret")
    assert only.error == "cannot list this folder: permission denied"
    with pytest.raises(ImageError, match="cannot list this folder: permission denied"):
        find_images([str(tmp_path)])
    errors: list[OSError] = []
    assert [Path(path).name for path in walk_images(str(tmp_path), errors.append)] == ["1.jpg"] and len(errors) == 1


@pytest.mark.parametrize("inputs", [[], ["nowhere"], ["nowhere/*.jpg"], ["a.jpg", "nowhere.png"], ["-"]])
def test_nothing_to_explain(inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "a.jpg")
    with pytest.raises(UsageError, match=r"no input|no such file or folder"):
        find_dataset(inputs, 10)


def test_inputs_without_images(tmp_path: Path) -> None:
    put(tmp_path / "a" / "notes.md")
    put(tmp_path / "list.txt", b"\n# nothing\n\n")
    put(tmp_path / "table.csv", b"path\n")
    for name in ("a", "list.txt", "table.csv"):
        with pytest.raises(UsageError, match="contains no images"):
            find_dataset([str(tmp_path / name)], 10)
    with pytest.raises(ImageError, match="no images in this folder"):
        find_images([str(tmp_path / "a")])


def test_wildcards_are_expanded_unless_a_file_has_that_name(tmp_path: Path) -> None:
    for name in ("a1.jpg", "a2.jpg", "a[1].jpg", "deep/er/b.jpg"):
        put(tmp_path / name)
    assert [Path(path).name for path in find_labels(tmp_path / "a[12].jpg")] == ["a1.jpg", "a2.jpg"]
    assert [Path(path).name for path in find_labels(tmp_path / "a[1].jpg")] == ["a[1].jpg"]
    assert [Path(path).name for path in find_labels(tmp_path / "**" / "b.jpg")] == ["b.jpg"]


# Lists


def test_list_with_labels(tmp_path: Path) -> None:
    text = "\ufeffa.jpg\tcat\r\n\r\n   \n# a remark\nsub/b c.jpg \t dog, hound \na.jpg\n" + f"{tmp_path}/d.jpg\t7"
    listed = put(tmp_path / "in" / "list.txt", text.encode())
    items = find_items(listed)
    assert [(item.id, item.label) for item in items] == [
        ("a.jpg", "cat"), ("sub/b c.jpg", "dog, hound"), ("a.jpg#2", None), (f"{tmp_path}/d.jpg", "7"),
    ]  # fmt: skip
    home = tmp_path / "in"
    assert [item.path for item in items[:3]] == [str(home / "a.jpg"), str(home / "sub/b c.jpg"), str(home / "a.jpg")]
    assert items[3].path == str(tmp_path / "d.jpg")
    assert not any(item.has_folder_label for item in items)


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    names = ["a\u2028b.jpg", "c\x85d.jpg", "e\x0bf.jpg", "g\x1dh.jpg"]
    listed = put(tmp_path / "list.lst", "\n".join(names).encode())
    assert list(find_labels(listed)) == names


def test_missing_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"list\.txt: no such file"):
        find_dataset([str(tmp_path / "list.txt")], 10)


def test_several_kinds_of_input(tmp_path: Path) -> None:
    put(tmp_path / "folder" / "cat" / "1.jpg")
    put(tmp_path / "list.txt", b"cat/1.jpg\tdog\n")
    put(tmp_path / "table.csv", b"file\nx.jpg\n")
    single = put(tmp_path / "y.jpg")
    items = find_dataset([str(tmp_path / name) for name in ("folder", "list.txt", "table.csv", "y.jpg")], 2)
    assert [(item.id, item.label) for item in all_items(items)] == [
        ("cat/1.jpg", "cat"), ("cat/1.jpg#2", "dog"), ("x.jpg", None), (str(single), None),
    ]  # fmt: skip
    assert items.parts == 2 and len(items.notes) == 2
    assert isinstance(items, ListDataset) and items.has_folder_labels


# Tables


def csv_table(path: Path, content: bytes) -> list[Item]:
    return read_table(str(put(path, content)))[0]


def parquet_table(where: Path, /, **values: list[Any]) -> list[Item]:
    parquet.write_table(pa.table(values), where)
    return read_table(str(where))[0]


@pytest.mark.parametrize(
    ("header", "fields"),
    [
        ("path,label", {}),
        ("file,class", {"label"}),
        ("File,CLASS_NAME", {"label"}),
        ("\ufeffpath,label", {}),
        ('\ufeff"path","label"', {}),
        ("label ,path", {}),
        (" filename , label ", {}),
        ("image_path,target", {}),
        ('path,"with, comma",label', {}),
        ("path,class,label", {}),
        ("filepath,category,other,label", {}),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_headers_of_a_csv(header: str, fields: set[str], end: str, tmp_path: Path) -> None:
    names = next(csv.reader([header.removeprefix("\ufeff")]))
    columns = {name.strip().lower(): name for name in names}
    label = next(columns[n] for n in ("label", "class", "class_name", "category", "target") if n in columns)
    kinds = ("path", "file", "filename", "filepath", "image_path")
    path = next(columns[n] for n in kinds if n in columns)
    cells = ["007" if name == label else "01" if name == path else "3" for name in names]
    (item,) = csv_table(tmp_path / "t.csv", f"{header}{end}{','.join(cells)}{end}".encode())
    assert (item.id, item.label, item.path) == ("01", "007", str(tmp_path / "01"))


def test_renamed_columns_are_noted(tmp_path: Path) -> None:
    one = put(tmp_path / "t.csv", b"file,Class\na.jpg,cat\n")
    assert read_table(str(one))[1] == [f"{one}: path from column file, label from column Class"]
    plain = put(tmp_path / "u.csv", b"path,label,extra\na.jpg,cat,1\n")
    assert read_table(str(plain))[1] == []


def test_columns_that_are_not_used_are_noted(tmp_path: Path) -> None:
    """A misspelled column of labels was dropped without a word."""
    table = put(tmp_path / "a.csv", b"path,klass,split\na.png,cat,train\n")
    note = f"{table}: no column of labels; unused: klass, split. For labels, rename one to label"
    assert read_table(str(table))[1] == [note]
    table = put(tmp_path / "b.csv", b"path,label,boxs,split\na.png,cat,,train\n")
    assert read_table(str(table))[1] == [f"{table}: the column boxs is not used - did you mean boxes?"]


def test_cells_of_a_csv(tmp_path: Path) -> None:
    text = 'path,label,mask\n"a,b.jpg","say ""cat""",\nc.jpg,,m.png\n,dog,\n"e\nf.jpg","",""\n1.jpg,1e3,\n'
    items = csv_table(tmp_path / "t.csv", text.encode())
    assert [(item.id, item.label) for item in items] == [
        ("a,b.jpg", 'say "cat"'), ("c.jpg", None), ("no path", None), ("e\nf.jpg", None), ("1.jpg", "1e3"),
    ]  # fmt: skip
    assert [item.mask for item in items] == [None, str(tmp_path / "m.png"), None, None, None]
    assert [item.error for item in items] == [None, None, "this row of the table has no path", None, None]


def test_tsv_cells_may_contain_commas(tmp_path: Path) -> None:
    (item,) = csv_table(tmp_path / "t.tsv", b"path\tlabel\tbox\na,b.jpg\t00\t1,2,3,4\n")
    assert (item.id, item.label, item.boxes) == ("a,b.jpg", "00", ((1, 2, 3, 4),))


@pytest.mark.parametrize(
    ("inputs", "boxes"),
    [
        ("1,2,30,40", [(1, 2, 30, 40)]),
        ("1 2 30 40", [(1, 2, 30, 40)]),
        (" 1.5, 2 ,30 40 ; -5 -6 7 8;", [(1.5, 2, 30, 40), (-5, -6, 7, 8)]),
        ("[1, 2, 30, 40]", [(1, 2, 30, 40)]),
        (" [[1,2,3,4],[5,6,7,8]]", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("1 2 3 4;1 2 3 4;1 2 3 4;1 2 3 4", [(1, 2, 3, 4)] * 4),
        ("[[1,2,3,4],[1,2,3,4],[1,2,3,4],[1,2,3,4]]", [(1, 2, 3, 4)] * 4),
        ([[1, 2, 3, 4]], [(1, 2, 3, 4)]),
        ([1, 2, 3.5, 4], [(1, 2, 3.5, 4)]),
        ((5e-1, 0, 1, 1e9), [(0.5, 0, 1, 1e9)]),
        ("[]", []),
        ("", None),
        ("  ", None),
        (None, None),
    ],
)
def test_boxes(inputs: Any, boxes: list[Any] | None) -> None:
    assert parse_boxes(inputs) == (None if boxes is None else tuple(boxes))


INVALID_BOXES: list[Any] = [
    "1,2,3", "1,2,3,4,5", "a,b,c,d", "nan,1,2,3", "0,0,inf,5", "4,4,1,1", "1,1,1,2", "1,2,3,2", "1;2;3;4", "[1,2,3,[4]]",
    "[[1,2,3]]", "[null]", '["1","2","3","4"]', '{"a": 1}', "(1,2,3,4)", "[" * 100_000, f"[0,0,{'1' * 400},5]", "[1,2",
    f"[0,0,{'1' * 5000},5]", 5, 1.5, True, b"1,2,3,4", [[1, 2, None, 4]], [1, 2, 3], {"a": 1, "b": 2, "c": 3, "d": 4},
]  # fmt: skip


@pytest.mark.parametrize("inputs", INVALID_BOXES, ids=lambda inputs: repr(inputs)[:20])
def test_invalid_boxes_raise(inputs: Any) -> None:
    with pytest.raises(ValueError, match=r"left,top,right,bottom"):
        parse_boxes(inputs)


def test_invalid_boxes_fail_their_row_only(tmp_path: Path) -> None:
    rows = [one for one in INVALID_BOXES if isinstance(one, str)]
    items = parquet_table(
        tmp_path / "t.parquet", path=[f"{n}.jpg" for n in range(len(rows) + 1)], boxes=[*rows, "1,2,3,4"]
    )
    assert [item.error is None for item in items] == [False] * len(rows) + [True]
    assert all("left,top,right,bottom" in item.error for item in items[:-1] if item.error)
    assert items[-1].boxes == ((1, 2, 3, 4),) and [item.boxes for item in items[:-1]] == [None] * len(rows)


def test_boxes_and_masks_of_a_csv(tmp_path: Path) -> None:
    text = b'path,bbox,mask,mask_value\na.jpg,"1,2,3,4; 5,6,7,8",m/a.png,0\nb.jpg,"[[1, 2, 3, 4]]",,\nc.jpg,1 2 3 4,/m.png,x\n'
    first, second, third = csv_table(tmp_path / "t.csv", text)
    assert first.boxes == ((1, 2, 3, 4), (5, 6, 7, 8)) and first.mask == str(tmp_path / "m/a.png")
    assert first.mask_value == 0 and first.error is None  # the value 0, not "no value"
    assert (second.boxes, second.mask, second.mask_value) == (((1, 2, 3, 4),), None, None)
    assert third.mask == "/m.png" and third.error == "mask_value 'x': give a non-negative integer"


@pytest.mark.parametrize("value", [float("inf"), 1.5, [1], [], "1.0", "-1", "1e3", "9" * 30, {"a": 1}, True], ids=repr)
def test_invalid_mask_value_fails_its_row(value: Any, tmp_path: Path) -> None:
    (item,) = parquet_table(tmp_path / "t.parquet", path=["a.jpg"], mask=["m.png"], mask_value=[value])
    assert item.error == f"mask_value {str(value)!r}: give a non-negative integer" and item.mask_value is None


def test_parquet_table_with_pandas_types(tmp_path: Path) -> None:
    items = parquet_table(
        tmp_path / "t.parquet",
        id=[0, 1, 2],
        path=["a.jpg", "b.jpg", "c.jpg"],
        label=[3.0, None, float("nan")],  # numbers of a column with gaps
        boxes=[[[1, 2, 3, 4]], None, [[1, 2, 3, 4], [0, 0, 1, 1]]],
        mask=["a.png", None, "c.png"],
        mask_value=[2.0, None, float("nan")],
    )
    assert [(item.id, item.label) for item in items] == [("0", "3"), ("1", None), ("2", None)]
    assert [item.boxes for item in items] == [((1, 2, 3, 4),), None, ((1, 2, 3, 4), (0, 0, 1, 1))]
    assert [item.mask_value for item in items] == [2, None, None] and not any(item.error for item in items)


def test_hive_style_folder_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "label=3").mkdir()
    (item,) = parquet_table(tmp_path / "label=3" / "t.parquet", path=["a.jpg"])
    assert item.label is None


def test_ids_of_a_table_are_unique(tmp_path: Path) -> None:
    one = put(tmp_path / "t.csv", b"id,path\nx,a.jpg\nx,b.jpg\n,c.jpg\n")
    assert list(find_labels(one)) == ["x", "x#2", "c.jpg"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("uneven.csv", b"path,label\na.jpg\n"),
        ("latin.csv", b"path,label\na\xe9.jpg,1\n"),
        ("head\xe9.csv", b"p\xe9th,path\n1,a.jpg\n"),
        ("utf16.csv", "path,label\na.jpg,1\n".encode("utf-16")),
        ("broken.parquet", b"PAR1 this is none PAR1"),
        ("empty.parquet", b""),
    ],
)
def test_unreadable_table(name: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this table cannot be read") as caught:
        csv_table(tmp_path / name, content)
    assert "\n" not in str(caught.value)


def test_missing_table(tmp_path: Path) -> None:
    for ending in ("csv", "tsv", "parquet"):
        with pytest.raises(UsageError, match="this table cannot be read"):
            find_dataset([str(tmp_path / f"none.{ending}")], 10)


def test_table_without_paths(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="has pth, label; name one of them path or file") as caught:
        csv_table(tmp_path / "t.csv", b"pth,label\na.jpg,1\n")
    assert caught.value.close_matches == ["pth"]


# Tar files


def tar(path: Path, contents: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, content in contents:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def in_tar(path: Path) -> list[Item]:
    return list(members(str(path), path.name))


SMALL = [("a.png", png(1)), ("a.cls", b"3\n"), ("b.png", png(2)), ("b.cls", b"4"), ("c.png", png(3)), ("c.cls", b"5")]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_file_with_every_compression(mode: str, tmp_path: Path) -> None:
    path = tar(tmp_path / f"x.tar{mode[1:].replace(':', '.')}", SMALL, mode)
    items = find_dataset([str(path)], 1)
    assert isinstance(items, TarDataset) and (items.parts, items.count, items.labels) == (1, None, [])
    assert [(item.id, item.label, item.data) for item in items.part(0)] == [
        (f"{path.name}/{key}", label, png(level)) for key, label, level in (("a", "3", 1), ("b", "4", 2), ("c", "5", 3))
    ]
    assert not any(item.error for item in items.part(0))


@pytest.mark.parametrize(
    ("name", "content", "label"),
    [
        ("cls", b" 7\n", "7"),
        ("cls", b"", None),
        ("CLS", b"7", "7"),
        ("label.txt", "Füchse\n".encode(), "Füchse"),
        ("label.txt", b"caf\xe9", "caf\ufffd"),
        ("txt", b"a caption, no label", None),
        ("json", b'{"label": 0, "cls": 3}', "0"),
        ("json", b'{"cls": "cat"}', "cat"),
        ("json", b'{"label": null}', None),
        ("json", b'{"caption": "x"}', None),
        ("json", b'{"label": "\\ud800x"}', "\\ud800x"),
        ("json", b'{"label": ""}', None),
        ("json", b"[1, 2]", None),
        ("json", b"{broken", None),
        ("json", b"\xff\xfe", None),
        ("json", b"[" * 100_000, None),
        ("json", b"1" * 5000, None),
    ],
)
def test_labels_in_a_tar_file(name: str, content: bytes, label: str | None, tmp_path: Path) -> None:
    (item,) = in_tar(tar(tmp_path / "x.tar", [("a.png", png()), (f"a.{name}", content)]))
    assert item.label == label
    pa.array([item.label], pa.string())


def test_precedence_of_label_members(tmp_path: Path) -> None:
    contents = [("a.json", json.dumps({"label": "json"}).encode()), ("a.png", png()), ("a.cls", b"cls")]
    (item,) = in_tar(tar(tmp_path / "x.tar", contents))
    assert item.label == "cls"


def test_names_in_a_tar_file(tmp_path: Path) -> None:
    contents = [
        ("train/a.png", png(1)), ("train/a.cls", b"1"), ("val/a.png", png(2)), (".hidden.png", png()),
        ("readme.md", b"none"), ("b.tar.notes", b"none"), (BYTES, png(3)), ("upper.PNG", png(4)), ("__MACOSX/._a.png", b""),
    ]  # fmt: skip
    items = in_tar(tar(tmp_path / "x.tar", contents))
    assert [(item.id, item.label) for item in items] == [
        ("x.tar/train/a", "1"), ("x.tar/val/a", None), ("x.tar/caf\\xe9", None), ("x.tar/upper", None),
    ]  # fmt: skip
    assert [item.data for item in items] == [png(1), png(2), png(3), png(4)]


def test_members_that_are_not_files_are_skipped(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", SMALL[:2])
    with tarfile.open(path, "a") as file:
        for name, kind in (("d.png", tarfile.DIRTYPE), ("l.png", tarfile.SYMTYPE), ("p.png", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            file.addfile(member)
    assert [item.id for item in in_tar(path)] == ["x.tar/a"]


def test_repeated_keys_in_a_tar_file(tmp_path: Path) -> None:
    contents = [("a.png", png(1)), ("a.png", png(2)), ("b.png", png(3)), ("a.png", png(4)), ("a#2.png", png(5))]
    items = in_tar(tar(tmp_path / "x.tar", contents))
    assert [item.id for item in items] == ["x.tar/a", "x.tar/a#2", "x.tar/b", "x.tar/a#3", "x.tar/a#2#2"]
    assert [item.data for item in items] == [png(level) for level in (1, 2, 3, 4, 5)]


def test_tar_files_with_the_same_name(tmp_path: Path) -> None:
    paths = [tar(tmp_path / folder / "0.tar", SMALL) for folder in ("train", "val", "test")]
    ids = [item.id for item in find_items(*paths)]
    assert len(set(ids)) == 9 and ids[0] == "0.tar/a" and ids[3] == "0.tar#2/a" and ids[6] == "0.tar#3/a"


def test_truncated_tar_file_ends_with_an_error(tmp_path: Path) -> None:
    complete = tar(tmp_path / "complete.tar", SMALL).read_bytes()
    end = 512 * 12  # six members of one header and one block; zeros after that
    assert complete[end:].count(0) == len(complete) - end
    for cut in range(0, end, 256):
        items = in_tar(put(tmp_path / "cut.tar", complete[:cut]))
        assert items[-1].error and "this tar file cannot be read after image" in items[-1].error, cut
        good = items[:-1]
        # an image counts once another member follows: its label may still be missing
        assert [item.label for item in good] == ["3", "4", "5"][: max(0, (cut - 512) // 2048)], cut
        assert not any(item.error for item in good) and f"image {len(good)} (" in items[-1].error
    for cut in (end + 512, len(complete)):  # a block of zeros is the end
        assert [item.label for item in in_tar(put(tmp_path / "cut.tar", complete[:cut]))] == ["3", "4", "5"]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_damaged_compressed_tar_file_ends_with_an_error(mode: str, tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(300_000)
    complete = tar(tmp_path / "complete.tar", [*SMALL, ("d.png", noise)], mode).read_bytes()
    damaged = bytearray(complete)
    damaged[len(complete) // 2 :] = bytes(len(complete) - len(complete) // 2)
    for content in (complete[: len(complete) // 2], complete[:20], damaged):
        items = in_tar(put(tmp_path / "bad.tar", bytes(content)))
        assert items[-1].error and "this tar file cannot be read" in items[-1].error
        assert all(item.error is None for item in items[:-1]) and "d" not in {item.id[-1] for item in items[:-1]}


def test_corrupt_header_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    content = bytearray(tar(tmp_path / "x.tar", SMALL).read_bytes())
    content[4096:4106] = b"x" * 10  # in the header of c.png
    items = in_tar(put(tmp_path / "x.tar", bytes(content)))
    assert [item.id for item in items] == ["x.tar/a", "x.tar/"]
    assert items[-1].error and "bad checksum" in items[-1].error


def test_corrupt_images_in_a_tar_file_are_yielded(tmp_path: Path) -> None:
    items = in_tar(tar(tmp_path / "x.tar", [("a.png", b"no image"), ("b.png", b""), ("c.png", png())]))
    assert [(item.id, item.error, item.data) for item in items] == [
        ("x.tar/a", None, b"no image"), ("x.tar/b", None, b""), ("x.tar/c", None, png()),
    ]  # fmt: skip


def test_random_damage_never_raises(tmp_path: Path) -> None:
    complete = tar(tmp_path / "x.tar", SMALL).read_bytes()
    generator = random.Random(1)
    damaged = 0
    for _ in range(200):
        content = bytearray(complete)
        for _ in range(generator.choice([1, 5])):
            content[generator.randrange(6144)] = generator.randrange(256)
        items = in_tar(put(tmp_path / "x.tar", bytes(content)))
        assert all(item.error is None for item in items[:-1])
        damaged += bool(items and items[-1].error)
    assert 50 < damaged < 200  # some damage hits headers


def test_tar_file_without_images(tmp_path: Path) -> None:
    assert in_tar(tar(tmp_path / "x.tar", [("a.txt", b"1"), ("b.json", b"{}")])) == []
    with pytest.raises(FileNotFoundError):  # may be temporary: a disk that is not mounted
        in_tar(tmp_path / "none.tar")
    with pytest.raises(UsageError, match=r"none\.tar: no such file"):
        find_dataset([str(tmp_path / "none.tar")], 3)
    (none,) = in_tar(put(tmp_path / "text.tar", b"no tar file" * 100))
    assert none.error
    if sys.version_info < (3, 14):
        (unknown,) = in_tar(put(tmp_path / "z.tar.zst", b"\x28\xb5\x2f\xfd" + bytes(range(250)) * 4))
        assert unknown.error


def test_tar_files_by_range_wildcard_and_folder(tmp_path: Path) -> None:
    for number in (8, 9, 10, 11):
        tar(tmp_path / f"train-{number:03}.tar", SMALL)
    put(tmp_path / "sizes.json")
    put(tmp_path / ".train-000.tar")
    ranged = find_dataset([str(tmp_path / "train-{008..010}.tar")], 5)
    assert isinstance(ranged, TarDataset)
    assert [Path(path).name for path in ranged.paths] == ["train-008.tar", "train-009.tar", "train-010.tar"]
    for inputs in (tmp_path, tmp_path / "*.tar", tmp_path / "train-{008..011}.tar"):
        items = find_dataset([str(inputs)], 5)
        assert items.parts == 4 and len(all_items(items)) == 12
    assert expand_braces("a-{9..11}-{0..1}") == [f"a-{one}-{other}" for one in (9, 10, 11) for other in (0, 1)]
    assert expand_braces("a-{x..y}{1,2}") == ["a-{x..y}{1,2}"]


def test_tar_files_cannot_be_combined_with_other_inputs(tmp_path: Path) -> None:
    path = tar(tmp_path / "tars" / "x.tar", SMALL)
    image = put(tmp_path / "a.jpg")
    with pytest.raises(UsageError, match=r"tar files cannot be combined with other inputs.*a\.jpg"):
        find_dataset([str(path), str(image)], 5)
    with pytest.raises(UsageError, match="tar files cannot be combined with other inputs"):
        find_dataset([str(image), str(tmp_path / "tars")], 5)
    put(tmp_path / "tars" / "deep" / "b.jpg")  # a folder that also contains images is a folder of images
    assert list(find_labels(tmp_path / "tars")) == ["deep/b.jpg"]


# Single parts


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_single_part_is_small_when_pickled(tmp_path: Path, kind: str) -> None:
    for number in range(40):
        put(tmp_path / "folder" / "caf\udce9" / f"{number:02d}.jpg")
        tar(tmp_path / "tars" / f"{number % 20}" / f"{number // 20}.tar", SMALL[:2])
    inputs = [str(tmp_path / "folder")] if kind == "folder" else sorted(map(str, (tmp_path / "tars").rglob("*.tar")))
    items = find_dataset(inputs, 1)
    assert items.parts == 40
    for part in (0, 7, 39):
        sent = pickle.dumps(items.single_part(part))
        assert list(pickle.loads(sent).part(part)) == list(items.part(part)) != []
        assert len(sent) < len(pickle.dumps(items)) / 5


# Digests


def test_digest_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    for root in ("here", "there/deeper"):
        put(tmp_path / root / "cat" / "1.jpg", root.encode())
        put(tmp_path / root / "dog" / "2.jpg")
        rows = b'path,label,box,mask\ncat/1.jpg,1,"1,2,3,4",m/1.png\n'
        put(tmp_path / root / "table.csv", rows)
        put(tmp_path / root / "list.txt", b"cat/1.jpg\tx\ndog/2.jpg\ty\n")
        tar(tmp_path / root / "tars" / "x.tar", SMALL)

    def digest(*parts: str) -> str:
        return find_dataset([str(tmp_path.joinpath(*parts))], 3).digest()

    for name in ("", "table.csv", "list.txt", "tars"):
        assert digest("here", name) == digest("there/deeper", name)
    assert len({digest("here", name) for name in ("", "table.csv", "list.txt", "tars", "cat", "dog")}) == 6


def test_digest_changes_with_ids_and_annotations() -> None:
    one = Item("a", "a.jpg", label="1", boxes=((0, 0, 1, 1),), mask="m/a.png", mask_value=1)
    two = Item("b", "b.jpg")

    def digest(*items: Item) -> str:
        return ListDataset(items, 3).digest()

    changed = [
        (two, one), (one,), (one, two, two), (replace(one, id="c"), two), (replace(one, label="2"), two),
        (replace(one, label=None), two), (replace(one, boxes=((0, 0, 1, 2),)), two), (replace(one, boxes=None), two),
        (replace(one, mask="m/b.png"), two), (replace(one, mask=None), two), (replace(one, mask_value=2), two),
    ]  # fmt: skip
    digests = {digest(*items) for items in changed}
    assert len(digests) == len(changed) and digest(one, two) not in digests
    assert digest(replace(one, path="x.jpg", mask="elsewhere/a.png"), two) == digest(one, two)
    digest(Item("\udce9", "x", label="\udce9"))  # lone surrogates do not raise


def test_digest_of_tar_files(tmp_path: Path) -> None:
    one, two = (tar(tmp_path / f"{n}.tar", SMALL[: 2 * n]) for n in (1, 2))
    assert TarDataset([str(one), str(two)]).digest() != TarDataset([str(two), str(one)]).digest()
    first = TarDataset([str(one)]).digest()
    assert first == TarDataset([str(tar(tmp_path / "moved" / "1.tar", SMALL[:2]))]).digest()
    put(one, one.read_bytes() + bytes(512))
    assert TarDataset([str(one)]).digest() != first
    one.unlink()
    assert TarDataset([str(one)]).digest() != first


# Classes

NAMES = ("tench, Tinca tinca", "crane", "cat", "crane", "7")


def test_class_of_a_label() -> None:
    resolve = LabelResolver([], has_folder_labels=False, names=NAMES, count=5)
    expected = {
        "tench": 0, "TINCA TINCA": 0, "tench, Tinca tinca": 0, "cat": 2, " 2 ": 2, "007": None, "4": 4, "5": None, "-1": None,
        "crane": None, "dog": None, "": None, "²": None, "1.0": None, "9" * 18: None, "9" * 40: None,
    }  # fmt: skip
    assert {label: resolve(label) for label in expected} == expected and resolve(None) is None


def test_labels_without_class_names_or_count() -> None:
    resolve = LabelResolver(["3", "cat"], has_folder_labels=False, names=None, count=None)
    assert (resolve("3"), resolve("cat")) == (3, None)
    assert resolve(str(2**31 - 1)) == 2**31 - 1 and resolve(str(2**31)) is None  # the column is int32
    bare = LabelResolver(["3", "cat"], has_folder_labels=False, names=None, count=3)
    assert (bare("2"), bare("3"), bare("cat")) == (2, None, None)
    assert bare.notes == ["2 of 2 labels are not classes of the model ('3', 'cat')"]


def test_one_folder_per_class_in_alphabetical_order() -> None:
    folders = ["n02", "n10", "N3", "a b", "ä"]
    resolve = LabelResolver(folders, has_folder_labels=True, names=NAMES, count=5)
    in_order = ["N3", "a b", "n02", "n10", "ä"]  # by code point, as torchvision's ImageFolder sorts
    assert [resolve(label) for label in in_order] == [0, 1, 2, 3, 4]
    assert resolve("n11") is None and resolve.notes == [
        "no folder has the name of a class, and there is one folder per class: assigned in alphabetical order (N3 is 0, ä is "
        "4)"
    ]


def test_alphabetical_order_matches_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    folders = ["b", "B", "_x", "a-1", "a1", "É", "z z"]
    for name in folders:
        put(tmp_path / name / "1.png", png())
    items = find_dataset([str(tmp_path)], 10)
    assert isinstance(items, ListDataset)
    resolve = LabelResolver(items.labels, has_folder_labels=items.has_folder_labels, names=None, count=len(folders))
    assert {name: resolve(name) for name in folders} == ImageFolder(str(tmp_path)).class_to_idx


@pytest.mark.parametrize(
    ("labels", "has_folder_labels", "note"),
    [
        (["x", "y"], True, "2 of 2 labels are not classes of the model ('x', 'y')"),  # fewer than classes
        (
            ["v", "w", "x", "y", "cat"],
            True,
            "4 of 5 labels are not classes of the model ('v', 'w', 'x')",
        ),  # one is known
        (["v", "w", "x", "y", "z"], False, "5 of 5 labels are not classes of the model ('v', 'w', 'x')"),  # no folders
    ],
)
def test_unknown_labels_are_noted(labels: list[str], has_folder_labels: bool, note: str) -> None:
    resolve = LabelResolver(labels, has_folder_labels=has_folder_labels, names=NAMES, count=5)
    assert resolve.notes == [note] and resolve("x") is None


def test_known_labels_need_no_note() -> None:
    resolve = LabelResolver(["cat", "0", "tinca tinca"], has_folder_labels=True, names=NAMES, count=None)
    assert resolve.notes == [] and [resolve("cat"), resolve("0"), resolve("tinca tinca")] == [2, 0, 0]
