"""The CSV and JSON output of `seewhy summary`, and reading photos for its thumbnails."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seewhy.bulk.bulk_run import BulkRun
from seewhy.cli import main as cli
from seewhy.errors import UsageError
from seewhy.summary import thumbnails, write_summary
from seewhy.summary.csv_tables import encode_csv
from seewhy.summary.thumbnails import PhotoFile, read_photos
from seewhy.terminal import OutlierRow, make_console, print_summary


def test_command_writes_tables_and_prints_the_summary(run: BulkRun, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "seewhy", "summary", str(run.folder)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0 and "Traceback" not in process.stderr, process.stderr
    assert "images 36" in process.stdout and "failed 2" in process.stdout and "most unusual maps" in process.stdout
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command[3:], "--json"])
    record = json.loads(capsys.readouterr().out)
    assert Path(record["page"]).exists() and isinstance(record["findings"], list)
    with open(run.folder / "summary" / "classes.csv", newline="") as file:
        assert sum(int(row["images"]) for row in csv.DictReader(file)) == 36
    with open(run.folder / "summary" / "outliers.csv", newline="") as file:
        assert {row["statistic"] for row in csv.DictReader(file)} >= {"border", "corner", "edge", "inside"}


def test_user_errors_are_one_line(run: BulkRun, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([], "give one"),
        ([str(home / "nothing")], "nothing"),
        ([str(run.folder), "--layer", "x"], "no layer 'x'"),
    ):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["summary", *arguments])
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error


def test_comparison_as_json(run: BulkRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["summary", str(run.folder), str(run.folder), "--json", "-o"]
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command, str(tmp_path)])
    record = json.loads(capsys.readouterr().out)
    assert Path(record["page"]).exists() and len(record["lowest_correlation"]) <= 20
    assert (record["images"], record["same_prediction"]) == (36, 1)
    assert record["median_correlation"] == pytest.approx(1)


def test_unwritable_output_folder_is_an_error(run: BulkRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["summary", str(run.folder), str(run.folder), "-o", str(tmp_path / "file" / "out")])
    assert "be written" in capsys.readouterr().err
    with pytest.raises(UsageError, match="be written"):
        write_summary(run, tmp_path / "file")


def test_csv_cells_are_never_formulas() -> None:
    rows = [["=1+1", "+1", "-1", "@x", "\tx", "\rx"], ["a=1", -1, 0.5, None, float("nan"), True]]
    parsed = list(csv.reader(io.StringIO(encode_csv(["a"] * 6, rows).decode(), newline="")))
    assert parsed[1] == ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\rx"]
    assert parsed[2] == ["a=1", "-1", "0.5", "", "", "True"]


def test_terminal_output_escapes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[2J\x9b2J\u202eb"
    print_summary(make_console(), [("run", name)], [name], [OutlierRow(name, 1.0, 0.5, 0.5, name)], name)
    output = capsys.readouterr().out
    assert not {"\x1b", "\x9b", "\u202e"} & set(output) and output.count("a\\x1b[2J\\x9b2J\\u202eb") == 5


def test_tar_file_is_read_once_for_all_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, PhotoFile] = {"none.png": PhotoFile(f"{tmp_path}/shard.tar/none.png", 5, "")}
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for number, name in enumerate(("./b.png", "A.PNG", "c/d.png", "broken.png")):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
            entry = tarfile.TarInfo(name)
            entry.size = len(file.getvalue()) if name != "broken.png" else 5
            tar.addfile(entry, io.BytesIO(file.getvalue()))
            content = file.getvalue()[: entry.size]
            files[name] = PhotoFile(f"{tmp_path}/shard.tar/{name}", entry.size, hashlib.sha256(content).hexdigest())
    calls: list[Any] = []
    open_tar = tarfile.open
    monkeypatch.setattr(thumbnails.tarfile, "open", lambda *arguments: calls.append(arguments) or open_tar(*arguments))
    names = ("./b.png", "A.PNG", "c/d.png", "broken.png", "none.png")
    photos = dict(read_photos(files))
    values = [None if photos[name] is None else int(photos[name][0, 0, 0]) for name in names]
    assert values == [0, 1, 2, None, None]
    assert len(calls) == 1
    assert dict(read_photos({1: PhotoFile(f"{tmp_path}/shard.tar", 1, "")})) == {1: None}
