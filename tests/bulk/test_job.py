"""A job as a whole: what is done, redone, refused, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy
from seewhy.bulk import part_files as parts
from seewhy.bulk.batches import BatchExplainer
from seewhy.bulk.bulk_run import read_footer, decode_map
from seewhy.bulk.dataset import Item, SinglePart
from seewhy.bulk.decoding import read
from seewhy.bulk.discovery import find_dataset
from seewhy.bulk.engines import Actor, cause_of
from seewhy.bulk.job import Outcome, class_of, run_job
from seewhy.bulk.plan import BulkSettings, make_plan
from seewhy.bulk.rows import BatchItem
from seewhy.bulk.worker import Job, Resources
from seewhy.cli import main as cli
from seewhy.errors import UnknownName, UsageError
from seewhy.images.preprocess import Preprocess
from seewhy.models import provenance

SEEN: list[int] = []  # sizes of batches; a list of the network's would be another one in its twin
SEEWHY = [sys.executable, "-m", "seewhy"]
PLAIN = ["--model", "support.kill_drill:plain", "--allow-code"]  # starts sooner than the embedded network
FINDING = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}  # where it is


class Small(nn.Module):
    """Four classes of 32 x 32 pictures, in no time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(inputs).mean((2, 3)))


class Picky(Small):
    """Takes no picture that is black."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if (inputs.flatten(1).amax(1) < -0.99).any():
            raise RuntimeError("too dark for me")
        return super().forward(inputs)


@pytest.fixture(scope="module")
def small() -> seewhy.LoadedModel:
    preprocess = Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3, "bilinear", 32, fit="squash")
    return seewhy.load_model(Small().eval(), preprocess=preprocess, labels=["ant", "bee", "cat", "dog"])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures in two folders, which are classes."""
    folder = tmp_path / "photos"
    draw = np.random.default_rng(0)
    for number in range(10):
        path = folder / ("ant" if number % 2 else "bee") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (40, 48, 3), np.uint8)).save(path)
    return folder


def job(
    loaded: seewhy.LoadedModel, inputs: Path, out: Path, *, questions: BulkSettings | None = None, **more: Any
) -> Outcome:
    given = {"means": Resources(workers=0), "batch": 2, "part_size": 4, "quiet": True, **more}
    return run_job(loaded, [str(inputs)], out, questions or BulkSettings(), **given)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("part-*.parquet")}


# What is in the rows


def test_rows_are_those_of_explain(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    asked = BulkSettings(
        methods=("gradcam", "layercam"), layers=("every",), targets=("top2", "label", "3"), store="float16"
    )
    outcome = job(small, photos, tmp_path / "run", questions=asked)
    assert outcome.to_dict() == {**outcome.to_dict(), "pictures": 10, "before": 0, "failed": 0, "parts": 3, "left": 0}
    run = seewhy.read_run(tmp_path / "run")
    rows = run.table.to_pylist()
    assert len(rows) == 10 * 4 * 2
    questions = ["top1", "top2", "label", "3"]
    for number, row in enumerate(rows):
        assert row["target"] == questions[number % 8 // 2] and row["method"] == ("gradcam", "layercam")[number % 2]
    for row in rows[::3]:
        label = row["id"].split("/")[0]
        ranked = {"top1": "top1", "top2": "top2", "label": label, "3": 3}[row["target"]]
        e = seewhy.explain(
            small,
            photos / row["id"],
            methods=row["method"],
            layers="every",
            targets=ranked if ranked != "top2" else seewhy.targets.TopScore(2),
        )
        assert (row["label"], row["label_class"]) == (label, ["ant", "bee"].index(label))
        assert (row["predicted"], row["predicted_name"]) == e.top(1)[0][:2]
        assert row["confidence"] == pytest.approx(e.top(1)[0][2], rel=1e-4)
        answer = e.target_results[0]
        assert row["target_name"] == answer.name and row["score"] == pytest.approx(float(answer.scores[0]), rel=1e-4)
        assert row["layers"] == list(e.layers) == ["features.0", "features.3"]
        for layer in e.layers:
            signed = e.map(layer=layer).numpy()
            np.testing.assert_allclose(decode_map(row, layer, "float16"), signed, atol=2e-3 * abs(signed).max())
        assert (
            row["view"] == list(e.view.box) and row["input"] == [32, 32] and (row["width"], row["height"]) == (48, 40)
        )
        assert row["flags"] == [list(e.flags(layer=layer)) for layer in e.layers]


def test_questions_that_mean_the_same_class_have_their_rows_all_the_same(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path
) -> None:
    """`explain` answers a class once; where all pictures of a batch agree, rows would be missing."""
    one = next((photos / "ant").iterdir())
    said = seewhy.explain(small, one).top(1)[0][0]
    job(small, one, tmp_path / "run", questions=BulkSettings(targets=("predicted", str(said), "top2")))
    rows = seewhy.read_run(tmp_path / "run").table.to_pylist()
    assert [row["target"] for row in rows] == ["top1", str(said), "top2"]
    assert rows[0]["maps"] == rows[1]["maps"] and rows[0]["target_key"] == rows[1]["target_key"] == str(said)
    assert rows[2]["target_key"] != str(said)


def test_the_footer_says_what_made_a_part(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    job(small, photos, tmp_path / "run")
    run = seewhy.read_run(tmp_path / "run")
    found = read_footer(run.files[1])
    assert (
        found["part"] == 1
        and found["model"]["weights"] == small.weights_hash
        and found["settings"]["layers"] == ["suggested"]
    )
    assert found["versions"]["torch"] == torch.__version__
    assert run.files[1].name == f"part-000001-of-000003.{found['fingerprint']}.parquet"
    assert pq.read_metadata(run.files[1]).row_group(0).column(0).compression == "ZSTD"


def test_a_part_does_not_depend_on_how_it_was_read(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    job(small, photos, tmp_path / "a")
    job(small, photos, tmp_path / "b", means=Resources(workers=2))
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for shard in ((1, 2), (0, 2)):
        job(small, photos, tmp_path / "c", shard=shard)
    assert files(tmp_path / "a") == files(tmp_path / "c")


def test_labels_that_are_no_class_fail_only_where_they_are_asked(
    small: seewhy.LoadedModel, tmp_path: Path, photos: Path
) -> None:
    table = tmp_path / "table.csv"
    names = sorted(path.relative_to(tmp_path).as_posix() for path in photos.rglob("*.png"))[:3]
    table.write_text(
        "path,label\n" + "\n".join(f"{name},{label}" for name, label in zip(names, ("cat", "moose", ""), strict=True))
    )
    assert job(small, table, tmp_path / "a").failed == 0
    assert job(small, table, tmp_path / "b", questions=BulkSettings(targets=("label",))).failed == 2
    reasons = [row["error"] for row in seewhy.read_run(tmp_path / "b").table.to_pylist()]
    assert reasons == [None, "its label 'moose' is no class of the model", "no label"]


# Pictures that cannot be explained


def test_every_bad_picture_is_a_row_with_its_reason_and_all_good_ones_are_done(
    small: seewhy.LoadedModel, tmp_path: Path
) -> None:
    folder = tmp_path / "all sorts"
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    good = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8))
    right = [
        "a/same.png",
        "b/same.png",
        "ü.png",
        unicodedata.normalize("NFD", "é.png"),
        "写真.png",
        "linked.png",
        "b/animated.gif",
    ]
    for name in right:
        if name != "linked.png":
            good.save(folder / name)
    (folder / "linked.png").symlink_to(folder / "a" / "same.png")
    Image.new("RGB", (3000, 3000)).save(folder / "huge.png")
    (folder / "empty.jpg").touch()
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (folder / "cut.png").write_bytes((folder / "a" / "same.png").read_bytes()[:200])
    (folder / "text.jpg").write_text("not a picture")
    (folder / "one.png").symlink_to(folder / "two.png")
    (folder / "two.png").symlink_to(folder / "one.png")
    (folder / "nowhere.png").symlink_to(tmp_path / "gone.png")
    (folder / "b" / "back").symlink_to(folder)  # a loop of folders
    (folder / "deep").mkdir()
    (folder / "deep" / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    outcome = job(
        small, folder, tmp_path / "run", means=Resources(workers=1), questions=BulkSettings(max_pixels=1_000_000)
    )
    rows = {row["id"]: row["error"] for row in seewhy.read_run(tmp_path / "run").table.to_pylist()}
    assert {name for name, error in rows.items() if error is None} == set(right)
    bad = {name: error for name, error in rows.items() if error is not None}
    assert set(bad) == {
        "huge.png", "empty.jpg", "broken.jpg", "cut.png", "text.jpg", "one.png", "two.png", "nowhere.png", "pipe.jpg",
    }  # fmt: skip
    for name, words in {
        "huge.png": "pixels",
        "empty.jpg": "empty",
        "nowhere.png": "no such file",
        "pipe.jpg": "pipe",
    }.items():
        assert words in bad[name], bad[name]
    assert "levels of symbolic links" in bad["one.png"]
    assert outcome.failed == len(bad) and outcome.pictures == len(rows)


def test_a_picture_that_the_model_refuses_does_not_take_its_batch_along(photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(photos / "ant" / "black.png")
    preprocess = Preprocess((32, 32), (0.5,) * 3, (0.5,) * 3, "bilinear", 32, fit="squash")
    loaded = seewhy.load_model(Picky().eval(), preprocess=preprocess, labels=["ant", "bee", "cat", "dog"])
    assert job(loaded, photos, tmp_path / "run", batch=4).failed == 1
    assert seewhy.read_run(tmp_path / "run").failed[0]["error"].endswith("(too dark for me); pass inputs that the model accepts")
    assert len(seewhy.read_run(tmp_path / "run").table) == 11


def test_a_question_that_nothing_answers_is_an_error_at_once(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="the model has 4 classes"):
        job(small, photos, tmp_path / "run", questions=BulkSettings(targets=("17",)))
    with pytest.raises(UnknownName, match=r"did you mean 'features\.3'"):
        job(small, photos, tmp_path / "run2", questions=BulkSettings(layers=("feature.3",)))
    assert files(tmp_path / "run") == {}


# Memory, and the size of a batch


class Full(Small):
    """A network for which more than three pictures are too many."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        SEEN.append(len(inputs))
        if len(inputs) > 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        return super().forward(inputs)


def taken(loaded: seewhy.LoadedModel, photos: Path) -> list[BatchItem]:
    paths = sorted(photos.rglob("*.png"))
    return [BatchItem(at, read(Item(path.name, str(path)), loaded.preprocess, 10**6)) for at, path in enumerate(paths)]


def test_a_batch_is_halved_where_memory_ends_and_stays_so(small: seewhy.LoadedModel, photos: Path) -> None:
    loaded = seewhy.load_model(Full().eval(), preprocess=small.preprocess, labels=small.labels)
    said: list[str] = []
    batches = BatchExplainer(loaded, BulkSettings(), size=8, memory=2**20, hear=said.append)
    some = taken(loaded, photos)
    rows = batches.rows(some[:8]).to_pylist()
    assert [row["id"] for row in rows] == [one.read.item.id for one in some[:8]]
    assert not any(row["error"] for row in rows)
    assert batches.size == 2 and said == [
        f"not enough memory for {n} pictures at once: {n // 2} from now on" for n in (8, 4)
    ]
    SEEN.clear()
    batches.rows(some[8:])
    assert max(SEEN) <= 2


def test_a_picture_that_is_too_much_by_itself_is_a_row(small: seewhy.LoadedModel, photos: Path) -> None:
    class Never(Small):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    loaded = seewhy.load_model(Never().eval(), preprocess=small.preprocess, labels=small.labels)
    batches = BatchExplainer(loaded, BulkSettings(), size=4, memory=2**20)
    batches.proved = True
    assert {row["error"] for row in batches.rows(taken(loaded, photos)[:4]).to_pylist()} == {"not enough memory"}


def test_the_size_of_a_batch_is_found_and_kept(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    loaded = seewhy.load_model(Full().eval(), preprocess=small.preprocess, labels=small.labels)
    batches = BatchExplainer(loaded, BulkSettings(), size=1, memory=2**20)
    assert batches.find_size(taken(loaded, photos)[0], 64) == 1  # four are too many
    job(small, photos, tmp_path / "run", batch=None, shard=(0, 2))
    size = json.loads((tmp_path / "run" / "job.json").read_text())["batch"]
    assert size in (1, 2)  # at most a quarter of the pictures
    job(small, photos, tmp_path / "run", batch=None, shard=(1, 2))
    assert json.loads((tmp_path / "run" / "job.json").read_text())["batch"] == size


# Going on


def test_a_second_start_does_what_is_missing_and_only_that(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path
) -> None:
    (photos / "bee" / "bad.png").write_bytes(b"")
    assert job(small, photos, tmp_path / "run").failed == 1
    whole = files(tmp_path / "run")
    middle = sorted(whole)[1]
    (tmp_path / "run" / middle).unlink()
    torn = tmp_path / "run" / sorted(whole)[0]
    torn.write_bytes(whole[torn.name][:300])  # what a broken disk might leave
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("part-*")}
    again = job(small, photos, tmp_path / "run")
    assert files(tmp_path / "run") == whole
    assert (again.pictures, again.before, again.failed, again.left) == (8, 3, 1, 0)
    last = sorted(whole)[2]
    assert (tmp_path / "run" / last).stat().st_mtime_ns == times[last]
    third = job(small, photos, tmp_path / "run")
    assert (third.pictures, third.before, third.failed) == (0, 11, 1)  # and the exit code is still 1


def test_other_settings_are_refused_by_name(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job(small, photos, out)
    before = files(out)
    for changed, words in (
        ({"questions": BulkSettings(layers=("every",))}, "layers suggested there, every here"),
        ({"questions": BulkSettings(targets=("top2",))}, "targets predicted there, top2 here"),
        ({"questions": BulkSettings(store="float16")}, "store uint8 there, float16 here"),
        ({"part_size": 5}, "part size 4 there, 5 here"),
        ({"questions": BulkSettings(max_pixels=100)}, "max pixels 50000000 there, 100 here"),
    ):
        with pytest.raises(UsageError, match=words):
            job(small, photos, out, **changed)
    other = seewhy.load_model(Small().eval(), preprocess=small.preprocess, labels=small.labels)
    with torch.no_grad():
        other.module.head.bias.add_(1)
    with pytest.raises(UsageError, match="other weights"):
        job(other, photos, out)
    renamed = seewhy.load_model(small.module, preprocess=small.preprocess, labels=["bee", "ant", "cat", "dog"])
    with pytest.raises(UsageError, match="other names of classes"):
        job(renamed, photos, out)
    shutil.copy(photos / "ant" / "1.png", photos / "ant" / "new.png")
    with pytest.raises(UsageError, match=r"other pictures.*\(10 there, 11 here\)"):
        job(small, photos, out)
    assert files(out) == before


def test_another_batch_size_is_said_and_not_refused(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job(small, photos, out)
    next(out.glob("part-000001*")).unlink()
    job(small, photos, out, batch=4)
    notes = [event.get("text", "") for event in logged(out)]
    assert any("batches of 4, and of 2 in what is done" in text for text in notes)


def test_other_versions_are_said_and_not_refused(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    job(small, photos, out)
    next(out.glob("part-000001*")).unlink()
    now = {**provenance.package_versions(), "torch": "99.1"}
    monkeypatch.setattr(provenance, "package_versions", lambda: now)
    assert job(small, photos, out).pictures == 4
    [note] = [event["text"] for event in logged(out) if "begun with" in event.get("text", "")]
    assert note == f"begun with torch {torch.__version__}, now 99.1: maps may differ in their last digits"


def test_data_may_lie_elsewhere_when_a_job_goes_on(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    job(small, photos, tmp_path / "run")
    next((tmp_path / "run").glob("part-000001*")).unlink()
    moved = photos.rename(tmp_path / "moved")
    assert job(small, moved, tmp_path / "run").pictures == 4


def test_a_second_writer_is_locked_out(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PATIENCE", 0.1)
    out = tmp_path / "run"
    out.mkdir()
    with parts.locked(out, (0, 1)):
        with pytest.raises(UsageError, match=r"being written by another process \(shard 0/1\)"):
            job(small, photos, out)
        with pytest.raises(UsageError, match="being written as shard 0/1; divide it in the same way"):
            job(small, photos, out, shard=(0, 2))
    with parts.locked(out, (0, 2)):
        assert job(small, photos, out, shard=(1, 2)).left == 2
    assert job(small, photos, out).left == 0


@pytest.mark.parametrize("text", ["1/1", "2/2", "-1/2", "a/b", "1", "0/0", ""])
def test_shards_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="say i/n, with i from 0 to n-1"):
        parts.read_shard(text)


def test_what_an_interrupted_writer_left_is_swept_and_nothing_else(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    job(small, photos, out)
    name = sorted(files(out))[1]
    mine, foreign = out / f".{name}.77-abcd.tmp", out / ".part-000001-of-000003.0123456789ab.parquet.77-abcd.tmp"
    mine.touch()
    foreign.touch()
    (out / "notes.txt").write_text("mine")
    job(small, photos, out)
    assert not mine.exists() and foreign.exists() and (out / "notes.txt").exists()


# How it ends


def test_a_full_disk_keeps_what_is_done_and_leaves_nothing_torn(photos: Path, tmp_path: Path) -> None:
    """The system's own error for a file that may not grow: RLIMIT_FSIZE, as a disk cannot be filled everywhere."""
    sizes = ["--part-size", "10", "--batch-size", "5", "--workers", "0"]
    command = [*SEEWHY, "bulk", str(many(photos, 20)), "--out", str(tmp_path / "run"), *sizes, *PLAIN]
    limits = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))}
    ended = subprocess.run(command, capture_output=True, text=True, env=FINDING, **limits)
    assert ended.returncode == 2, ended.stderr
    assert "the disk is full. What is done stays done" in ended.stderr and "Traceback" not in ended.stderr
    assert files(tmp_path / "run") == {} and not list((tmp_path / "run").glob(".*.tmp"))
    with pytest.raises(SystemExit, match="0"):  # here is room
        cli.main(command[3:])
    assert len(files(tmp_path / "run")) == 2


def test_full_is_said_for_each_error_that_means_it(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job(small, photos, tmp_path / "run", shard=(0, 2))
    before = files(tmp_path / "run")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parts.os, "fsync", refuse)
    with pytest.raises(UsageError, match="the disk is full"):
        job(small, photos, tmp_path / "run", shard=(1, 2))
    assert files(tmp_path / "run") == before and not list((tmp_path / "run").glob(".*.tmp"))


def started(photos: Path, out: Path, workers: int, **pipes: Any) -> subprocess.Popen[str]:
    """A job over 400 pictures in a session of its own, after its first part file."""
    sizes = ["--part-size", "4", "--batch-size", "4", "--workers", str(workers)]
    command = [*SEEWHY, "bulk", str(many(photos, 400)), "--out", str(out), *sizes, *PLAIN]
    child = subprocess.Popen(command, text=True, start_new_session=True, env=FINDING, **pipes)
    end = time.monotonic() + 120
    while not files(out) and child.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    return child


def test_ctrl_c_ends_in_order(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    child = started(photos, out, 1, stderr=subprocess.PIPE)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal sends it: to all of them
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert "Traceback" not in errors and "the same command goes on" in errors
    done = len(files(out))
    assert 0 < done < 100 and not list(out.glob(".*.tmp"))
    events = logged(out)
    assert [event["event"] for event in events if event["event"] != "part"][-1] == "ended"
    assert events[-1]["how"] == "interrupted" and sum(event["event"] == "part" for event in events) == done


@pytest.mark.parametrize("step", ["before rename", "after rename"])
def test_the_log_holds_what_is_done_wherever_an_interruption_falls(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    out, seen = tmp_path / "run", []

    def reached(name: str) -> None:
        seen.append(name)
        if seen.count(step) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(parts, "reached", reached)
    with pytest.raises(KeyboardInterrupt):
        job(small, photos, out)
    *_, ended = events = logged(out)
    done = [event["part"] for event in events if event["event"] == "part"]
    assert done == ([0] if step == "before rename" else [0, 1]) and len(done) == len(files(out))
    known = {name: ended[name] for name in ("how", "pictures", "failed", "left")}
    assert known == {"how": "interrupted", "pictures": 4 * len(done), "failed": 0, "left": 3 - len(done)}


def test_a_retry_that_is_interrupted_does_not_count_what_was_there(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "ant" / "bad.png").write_bytes(b"no")
    out = tmp_path / "run"
    job(small, photos, out)

    def interrupt(name: str) -> None:
        if name == "before rename":
            raise KeyboardInterrupt

    monkeypatch.setattr(parts, "reached", interrupt)
    with pytest.raises(KeyboardInterrupt):
        job(small, photos, out, retry=True)
    *_, started, ended = [event for event in logged(out) if event["event"] != "note"]
    assert (started["event"], ended["how"], ended["pictures"], ended["left"]) == ("started", "interrupted", 0, 0)


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log-0-of-1.jsonl").read_text().splitlines()]


# The command line


def test_the_command_line_and_its_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(seewhy.sample("coffee"), folder / "coffee.png")
    (folder / "bad.png").write_bytes(b"no")
    out = tmp_path / "run"
    command = [*SEEWHY, "bulk", str(folder), "--out", str(out), "--workers", "0"]
    ended = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert ended.returncode == 1
    assert json.loads(ended.stdout) | {"seconds": 0} == {
        "run": str(out), "pictures": 2, "before": 0, "failed": 1, "parts": 1, "left": 0, "seconds": 0,
    }  # fmt: skip
    with pytest.raises(SystemExit, match="1"):
        cli.main(command[3:])
    assert "2 were there; 1 failed" in capsys.readouterr().out
    for wrong, words in (
        (["--layers", "every"], "layers suggested there, every here"),
        (["--shard", "3"], "say i/n"),
        (["--methods", "gradcan"], "did you mean 'gradcam'"),
        (["--methods", "all"], "name the methods"),
        (["--targets", "point:espresso@1,2"], "a place in one photo is none in another"),
        (["--batch-size", "0"], "give at least 1"),
        (["--part-size", "0"], "give at least 1"),
    ):
        with pytest.raises(SystemExit, match="2"):
            cli.main([*command[3:], *wrong])
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bulk", str(tmp_path / "none"), "--out", str(out)])
    assert "no such file or folder" in capsys.readouterr().err


def test_explain_all_takes_what_the_command_line_takes(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    run = seewhy.explain_all(
        small, photos, tmp_path / "run", targets=["predicted", "label"], layers="every", workers=0, quiet=True, seed=3
    )
    assert run.complete and len(run) == 20 and run.settings["seed"] == 3
    with pytest.raises(UnknownName, match="did you mean 'versus'"):
        seewhy.explain_all(small, photos, tmp_path / "run", version="x")


# What must not be taken for a picture's fault


class Dying(Small):
    """Fails for good after so many pictures, as a device does; `words` is what it says."""

    def __init__(self, after: int, words: str) -> None:
        super().__init__()
        self.after, self.words = after, words

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        SEEN.append(len(inputs))
        if sum(SEEN) > self.after:
            raise RuntimeError(self.words)
        return super().forward(inputs)


def many(photos: Path, count: int) -> Path:
    folder = photos.parent / "many"
    folder.mkdir()
    for copy in range(count):
        shutil.copy(photos / "ant" / "1.png", folder / f"{copy:03d}.png")
    return folder


@pytest.mark.parametrize("words", ["CUDA error: an illegal memory access was encountered", "the weights are gone"])
def test_a_device_that_fails_ends_the_job_and_burns_no_pictures(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, words: str
) -> None:
    folder = many(photos, 100)
    loaded = seewhy.load_model(Dying(12, words).eval(), preprocess=small.preprocess, labels=small.labels)
    SEEN.clear()
    with pytest.raises(UsageError, match=f"{words}.*What is done stays done"):
        job(loaded, folder, tmp_path / "run", part_size=90)
    assert files(tmp_path / "run") == {} and not list((tmp_path / "run").glob(".*.tmp"))
    loaded.module.after = 10**9
    assert job(loaded, folder, tmp_path / "run", part_size=90).failed == 0  # it comes back, and nothing is lost


def test_a_disk_that_is_gone_ends_the_job(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seewhy.bulk import decoding as reading

    def content(item: Item) -> bytes:
        if item.id.endswith("7.png"):
            raise OSError(errno.ESTALE, "Stale file handle")
        return Path(item.path).read_bytes()

    monkeypatch.setattr(reading, "content", content)
    with pytest.raises(UsageError, match="stale file handle; what is done stays done"):
        job(small, photos, tmp_path / "run")
    monkeypatch.undo()
    assert job(small, photos, tmp_path / "run").failed == 0


def test_one_awkward_picture_at_the_beginning_refuses_no_job(
    photos: Path, tmp_path: Path, small: seewhy.LoadedModel
) -> None:
    Image.new("RGB", (40, 40)).save(photos / "ant" / "0.png")
    (photos / "ant" / "00.png").write_bytes(b"no")
    loaded = seewhy.load_model(Picky().eval(), preprocess=small.preprocess, labels=small.labels)
    assert job(loaded, photos, tmp_path / "run", batch=None).failed == 2
    assert json.loads((tmp_path / "run" / "job.json").read_text())["batch"] >= 1


def test_failed_parts_are_done_again_on_request(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    bad = photos / "bee" / "bad.png"
    bad.write_bytes(b"")
    assert job(small, photos, tmp_path / "run").failed == 1
    shutil.copy(photos / "ant" / "1.png", bad)
    assert job(small, photos, tmp_path / "run").failed == 1
    again = job(small, photos, tmp_path / "run", retry=True)
    assert again.failed == 0 and again.pictures <= 4


def test_suggested_is_one_layer_for_all_starts(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is suggested may depend on the picture, and each shard sees another first."""
    from seewhy.bulk import calibration as settling

    job(small, photos, tmp_path / "run", shard=(0, 2))
    kept = json.loads((tmp_path / "run" / "job.json").read_text())
    assert kept["layers"] == ["features"] and kept["methods"] == ["gradcam"]

    def never(*_: Any) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(settling, "suggest", never)
    job(small, photos, tmp_path / "run", shard=(1, 2))
    assert seewhy.read_run(tmp_path / "run").layers == ("features",)


def test_the_first_plan_that_is_written_is_the_one(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from seewhy.bulk.discovery import find_dataset
    from seewhy.bulk.plan import make_plan, write_job

    plan = make_plan(small, find_dataset([str(photos)], 4), BulkSettings(), 4)
    tmp_path.joinpath("run").mkdir()
    first = write_job(replace(plan, batch=4, layers=("features.0",), methods=("gradcam",)), tmp_path / "run")
    late = write_job(replace(plan, batch=2, layers=("features.3",), methods=("gradcam",)), tmp_path / "run")
    assert late == first and late.layers == ("features.0",)
    other = make_plan(small, find_dataset([str(photos)], 4), BulkSettings(targets=("top2",)), 4)
    with pytest.raises(UsageError, match="targets predicted there, top2 here"):
        write_job(replace(other, batch=2), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["job.json"]


def test_locks_of_an_earlier_division_that_nobody_holds_hinder_nobody(tmp_path: Path) -> None:
    """Shards start at once where others ran before: each looks at the old locks, and at those of the others for a moment."""
    for shard in range(16):
        with parts.locked(tmp_path, (shard, 16)):
            pass
    code = (
        "import sys; from concurrent.futures import ThreadPoolExecutor; from pathlib import Path\n"
        "from seewhy.bulk import parts\n"
        "def hold(shard):\n"
        "    with parts.locked(Path(sys.argv[1]), (int(shard), 6)): pass\n"
        "list(ThreadPoolExecutor(3).map(hold, sys.argv[2:]))"
    )
    commands = [[sys.executable, "-c", code, str(tmp_path), *map(str, range(first, 6, 2))] for first in (0, 1)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands]
    ends = [child.communicate(timeout=120)[1].decode()[-300:] for child in started]
    assert [child.returncode for child in started] == [0] * 2, ends


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_readers_end_with_the_process_that_they_read_for(photos: Path, tmp_path: Path) -> None:
    child = started(photos, tmp_path / "run", 2, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    assert len(of_session(child.pid)) >= 3
    child.kill()
    child.wait()
    while of_session(child.pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert of_session(child.pid) == []


def of_session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            after = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if entry.name.isdigit() and int(after[3]) == leader and after[0] != "Z":
            found.append(int(entry.name))
    return found


def test_an_actor_sends_its_notes_with_its_part(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own part in it, the carrying of rows, is tried by the drill."""
    loaded = seewhy.load_model(Full().eval(), preprocess=small.preprocess, labels=small.labels)
    items = find_dataset([str(photos)], 5)
    plan = replace(make_plan(loaded, items, BulkSettings(), 5), batch=5)
    (tmp_path / "run").mkdir()
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda given: given))
    own = Job(loaded, SinglePart(()), plan, tmp_path / "run", Resources(workers=0), class_of(loaded, items))
    actor = Actor([own], gpu=False, threads=torch.get_num_threads())
    sent = [{"part": np.array([part]), "items": [pickle.dumps(items.single_part(part))]} for part in (0, 1)]
    rows = [actor(one) for one in sent]
    assert [row["part"] for row in rows] == [[0], [1]] and [row["pictures"] for row in rows] == [[5], [5]]
    assert rows[0]["notes"] == [["not enough memory for 5 pictures at once: 2 from now on"]]
    assert rows[1]["notes"] == [[]]


def test_what_an_actor_died_of_is_said_as_it_is() -> None:
    class OfRay(Exception):
        def __init__(self, text: str, cause: Exception | None) -> None:
            super().__init__(text)
            self.cause = cause

    full = OSError(errno.ENOSPC, "No space left on device")
    assert cause_of(OfRay("task failed", OfRay("user code failed", full))) is full
    assert cause_of(OfRay("task failed", wrong := UsageError("no layer"))) is wrong
    assert str(cause_of(OfRay("the node died\nmore", None))) == "Ray: the node died; what is done stays done."


def test_names_do_not_reach_into_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    shutil.copy(seewhy.sample("coffee"), folder / "good.png")
    (folder / "\x1b]0;owned\x07\x1b[31mbad.png").write_bytes(b"no")
    with pytest.raises(SystemExit, match="1"):
        cli.main(["bulk", str(folder), "--out", str(tmp_path / "run"), "--workers", "0"])
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\\x1b[31mbad.png" in said


def test_one_logit_predicts_no_class(photos: Path, tmp_path: Path, small: seewhy.LoadedModel) -> None:
    class One(Small):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs)[:, :1]

    loaded = seewhy.load_model(One().eval(), preprocess=small.preprocess)
    job(loaded, photos, tmp_path / "run")
    row = seewhy.read_run(tmp_path / "run").table.to_pylist()[0]
    assert row["predicted"] is None and row["confidence"] is None and row["score"] is not None
