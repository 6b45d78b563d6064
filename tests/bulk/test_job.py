"""Bulk jobs in this process: their rows, resuming, refusals and how they end."""

from __future__ import annotations

import errno
import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.bulk import calibration, decoding, part_files
from seewhy.bulk.dataset import Item
from seewhy.bulk.job import Outcome
from seewhy.bulk.row_values import decode_map, read_footer
from seewhy.bulk.settings import BulkSettings, parse_shard
from seewhy.errors import UnknownName, UsageError
from seewhy.models import provenance
from support.bulk_jobs import (
    BATCH_SIZES,
    FailsAfter,
    RefusesBlackImages,
    SmallNetwork,
    copies,
    load_small,
    part_contents,
    read_events,
    read_notes,
    start,
    temporary_files,
)

# Rows


def test_rows_match_explain(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    settings = BulkSettings(
        methods=("gradcam", "layercam"), layers=("every",), targets=("top2", "label", "3"), store="float16"
    )
    outcome = start(small, photos, tmp_path / "run", settings)
    assert outcome == Outcome(images=10, images_before=0, failed=0, parts=3, parts_left=0, seconds=outcome.seconds)
    rows = seewhy.read_run(tmp_path / "run").table.to_pylist()
    assert len(rows) == 10 * 4 * 2
    targets = ["top1", "top2", "label", "3"]
    for number, row in enumerate(rows):
        assert row["target"] == targets[number % 8 // 2] and row["method"] == ("gradcam", "layercam")[number % 2]
    for row in rows[::3]:
        label = row["id"].split("/")[0]
        target = {"top1": "top1", "top2": seewhy.targets.TopScore(2), "label": label, "3": 3}[row["target"]]
        e = seewhy.explain(small, photos / row["id"], methods=row["method"], layers="every", targets=target)
        assert (row["label"], row["label_class"]) == (label, ["ant", "bee"].index(label))
        assert (row["predicted"], row["predicted_name"]) == e.top(1)[0][:2]
        assert row["confidence"] == pytest.approx(e.top(1)[0][2], rel=1e-4)
        result = e.target_results[0]
        assert row["target_name"] == result.name and row["score"] == pytest.approx(float(result.scores[0]), rel=1e-4)
        assert row["layers"] == list(e.layers) == ["features.0", "features.3"]
        for layer in e.layers:
            signed = e.map(layer=layer).numpy()
            np.testing.assert_allclose(decode_map(row, layer, "float16"), signed, atol=2e-3 * abs(signed).max())
        assert row["view"] == list(e.view.box) and row["input"] == [32, 32]
        assert (row["width"], row["height"]) == (48, 40)
        assert row["flags"] == [list(e.flags(layer=layer)) for layer in e.layers]


def test_targets_of_the_same_class_have_separate_rows(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    """`explain` merges targets of the same class. If all images of a batch agree, rows would be missing."""
    image = next((photos / "ant").iterdir())
    predicted = str(seewhy.explain(small, image).top(1)[0][0])
    start(small, image, tmp_path / "run", BulkSettings(targets=("predicted", predicted, "top2")))
    rows = seewhy.read_run(tmp_path / "run").table.to_pylist()
    assert [row["target"] for row in rows] == ["top1", predicted, "top2"]
    assert rows[0]["maps"] == rows[1]["maps"] and rows[0]["target_key"] == rows[1]["target_key"] == predicted
    assert rows[2]["target_key"] != predicted


def test_footer_contains_job_and_versions(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    start(small, photos, tmp_path / "run")
    path = seewhy.read_run(tmp_path / "run").files[1]
    footer = read_footer(path)
    assert footer["part"] == 1 and footer["model"]["weights"] == small.weights_hash
    assert footer["settings"]["layers"] == ["suggested"] and footer["versions"]["torch"] == torch.__version__
    assert path.name == f"part-000001-of-000003.{footer['fingerprint']}.parquet"
    assert pq.read_metadata(path).row_group(0).column(0).compression == "ZSTD"


def test_parts_do_not_depend_on_workers_or_shards(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    start(small, photos, tmp_path / "a")
    start(small, photos, tmp_path / "b", workers=2)
    assert part_contents(tmp_path / "a") == part_contents(tmp_path / "b")
    for shard in ("1/2", "0/2"):
        start(small, photos, tmp_path / "c", shard=shard)
    assert part_contents(tmp_path / "a") == part_contents(tmp_path / "c")


def test_unknown_labels_fail_only_if_the_target_is_the_label(
    small: seewhy.LoadedModel, tmp_path: Path, photos: Path
) -> None:
    table = tmp_path / "table.csv"
    names = sorted(path.relative_to(tmp_path).as_posix() for path in photos.rglob("*.png"))[:3]
    rows = [f"{name},{label}" for name, label in zip(names, ("cat", "moose", ""), strict=True)]
    table.write_text("\n".join(["path,label", *rows]))
    assert start(small, table, tmp_path / "a").failed == 0
    assert start(small, table, tmp_path / "b", BulkSettings(targets=("label",))).failed == 2
    errors = [row["error"] for row in seewhy.read_run(tmp_path / "b").table.to_pylist()]
    assert errors == [None, "its label 'moose' is not a class of the model", "no label"]


def test_model_with_one_logit_predicts_no_class(photos: Path, tmp_path: Path) -> None:
    class OneLogit(SmallNetwork):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs)[:, :1]

    loaded = seewhy.load_model(OneLogit().eval(), preprocess=load_small().preprocess)
    start(loaded, photos, tmp_path / "run")
    row = seewhy.read_run(tmp_path / "run").table.to_pylist()[0]
    assert row["predicted"] is None and row["confidence"] is None and row["score"] is not None


# Images that fail


def test_every_failed_image_has_a_row_with_its_reason(small: seewhy.LoadedModel, tmp_path: Path) -> None:
    """All other images are explained."""
    folder = tmp_path / "mixed"
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8))
    decomposed = unicodedata.normalize("NFD", "é.png")
    good = ["a/same.png", "b/same.png", "ü.png", decomposed, "写真.png", "linked.png", "b/animated.gif"]
    for name in good:
        if name != "linked.png":
            image.save(folder / name)
    (folder / "linked.png").symlink_to(folder / "a" / "same.png")
    Image.new("RGB", (3000, 3000)).save(folder / "huge.png")
    (folder / "empty.jpg").touch()
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (folder / "cut.png").write_bytes((folder / "a" / "same.png").read_bytes()[:200])
    (folder / "text.jpg").write_text("not an image")
    (folder / "one.png").symlink_to(folder / "two.png")
    (folder / "two.png").symlink_to(folder / "one.png")
    (folder / "nowhere.png").symlink_to(tmp_path / "gone.png")
    (folder / "b" / "back").symlink_to(folder)  # a cycle of folders
    (folder / "deep").mkdir()
    (folder / "deep" / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    outcome = start(small, folder, tmp_path / "run", BulkSettings(max_pixels=1_000_000), workers=1)
    rows = {row["id"]: row["error"] for row in seewhy.read_run(tmp_path / "run").table.to_pylist()}
    assert {name for name, error in rows.items() if error is None} == set(good)
    errors = {name: error for name, error in rows.items() if error is not None}
    words = {
        "huge.png": "pixels", "empty.jpg": "empty", "nowhere.png": "no such file", "pipe.jpg": "pipe",
        "one.png": "levels of symbolic links", "two.png": "", "broken.jpg": "", "cut.png": "", "text.jpg": "",
    }  # fmt: skip
    assert set(errors) == set(words)
    for name, word in words.items():
        assert word in errors[name], errors[name]
    assert outcome.failed == len(errors) and outcome.images == len(rows)


def test_image_that_the_model_refuses_fails_without_its_batch(photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(photos / "ant" / "black.png")
    assert start(load_small(RefusesBlackImages()), photos, tmp_path / "run", batch_size=4).failed == 1
    run = seewhy.read_run(tmp_path / "run")
    assert "too dark for me" in run.failed[0]["error"] and len(run.table) == 11


def test_settings_that_work_for_no_image_end_the_job_at_once(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="the model has 4 classes"):
        start(small, photos, tmp_path / "run", BulkSettings(targets=("17",)))
    with pytest.raises(UnknownName, match=r"did you mean 'features\.3'"):
        start(small, photos, tmp_path / "run2", BulkSettings(layers=("feature.3",)))
    assert part_contents(tmp_path / "run") == {}


@pytest.mark.parametrize("message", ["CUDA error: an illegal memory access was encountered", "the weights are gone"])
def test_lost_device_ends_the_job_and_fails_no_images(photos: Path, tmp_path: Path, message: str) -> None:
    folder = copies(photos, 100)
    loaded = load_small(FailsAfter(40, message))  # after the calibration, which prepares the model
    BATCH_SIZES.clear()
    with pytest.raises(UsageError, match=f"{message}.*Finished parts are kept"):
        start(loaded, folder, tmp_path / "run", part_size=90)
    assert part_contents(tmp_path / "run") == {} and not temporary_files(tmp_path / "run")
    loaded.module.after = 10**9
    assert start(loaded, folder, tmp_path / "run", part_size=90).failed == 0


def test_unavailable_disk_ends_the_job(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_file(item: Item) -> bytes:
        if item.id.endswith("7.png"):
            raise OSError(errno.ESTALE, "Stale file handle")
        return Path(item.path).read_bytes()

    monkeypatch.setattr(decoding, "read_file", read_file)
    with pytest.raises(UsageError, match=r"stale file handle\. Finished parts are kept"):
        start(small, photos, tmp_path / "run")
    monkeypatch.undo()
    assert start(small, photos, tmp_path / "run").failed == 0


# Calibration


def test_first_images_may_fail(photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(photos / "ant" / "0.png")
    (photos / "ant" / "00.png").write_bytes(b"no")
    assert start(load_small(RefusesBlackImages()), photos, tmp_path / "run", batch_size=None).failed == 2
    assert json.loads((tmp_path / "run" / "job.json").read_text())["batch_size"] >= 1


def test_suggested_is_the_same_layer_for_all_shards(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suggestion may depend on the image, and each shard reads another image first."""
    start(small, photos, tmp_path / "run", shard="0/2")
    job = json.loads((tmp_path / "run" / "job.json").read_text())
    assert job["layers"] == ["features"] and job["methods"] == ["gradcam"]
    monkeypatch.setattr(calibration, "suggest", lambda *_: pytest.fail("calibrated twice"))
    start(small, photos, tmp_path / "run", shard="1/2")
    assert seewhy.read_run(tmp_path / "run").layers == ("features",)


# Resuming


def test_second_start_computes_only_missing_parts(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (photos / "bee" / "bad.png").write_bytes(b"")
    assert start(small, photos, out).failed == 1
    contents = part_contents(out)
    first, middle, last = sorted(contents)
    (out / middle).unlink()
    (out / first).write_bytes(contents[first][:300])  # damaged by a disk
    written = (out / last).stat().st_mtime_ns
    second = start(small, photos, out)
    assert part_contents(out) == contents
    assert (second.images, second.images_before, second.failed, second.parts_left) == (8, 3, 1, 0)
    assert (out / last).stat().st_mtime_ns == written
    third = start(small, photos, out)
    assert (third.images, third.images_before, third.failed) == (0, 11, 1)  # failed images still count


def test_retry_computes_parts_with_failed_images(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    bad = photos / "bee" / "bad.png"
    bad.write_bytes(b"")
    assert start(small, photos, tmp_path / "run").failed == 1
    shutil.copy(photos / "ant" / "1.png", bad)
    assert start(small, photos, tmp_path / "run").failed == 1
    again = start(small, photos, tmp_path / "run", retry_failed=True)
    assert again.failed == 0 and again.images <= 4


def test_other_settings_are_refused_and_listed(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    start(small, photos, out)
    before = part_contents(out)
    for settings, text in (
        (BulkSettings(layers=("every",)), "layers: suggested in the run, every now"),
        (BulkSettings(targets=("top2",)), "targets: predicted in the run, top2 now"),
        (BulkSettings(store="float16"), "store: uint8 in the run, float16 now"),
        (BulkSettings(max_pixels=100), "max pixels: 50000000 in the run, 100 now"),
    ):
        with pytest.raises(UsageError, match=text):
            start(small, photos, out, settings)
    with pytest.raises(UsageError, match="part size: 4 in the run, 5 now"):
        start(small, photos, out, part_size=5)
    other = load_small()
    with torch.no_grad():
        other.module.head.bias.add_(1)
    with pytest.raises(UsageError, match="other weights"):
        start(other, photos, out)
    renamed = seewhy.load_model(small.module, preprocess=small.preprocess, labels=["bee", "ant", "cat", "dog"])
    with pytest.raises(UsageError, match="other class names"):
        start(renamed, photos, out)
    shutil.copy(photos / "ant" / "1.png", photos / "ant" / "new.png")
    with pytest.raises(UsageError, match=r"other images or labels \(10 images in the run, 11 now\)"):
        start(small, photos, out)
    assert part_contents(out) == before


def test_another_batch_size_is_noted(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    start(small, photos, out)
    next(out.glob("part-000001*")).unlink()
    start(small, photos, out, batch_size=4)
    assert any("batches of 4 images; finished parts used 2" in note for note in read_notes(out))


def test_other_versions_are_noted(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    start(small, photos, out)
    next(out.glob("part-000001*")).unlink()
    now = {**provenance.package_versions(), "torch": "99.1"}
    monkeypatch.setattr(provenance, "package_versions", lambda: now)
    assert start(small, photos, out).images == 4
    version = f"torch {torch.__version__} (now 99.1)"
    assert f"started with other versions: {version}. Maps may differ in their last digits" in read_notes(out)


def test_dataset_may_move_between_starts(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    start(small, photos, tmp_path / "run")
    next((tmp_path / "run").glob("part-000001*")).unlink()
    moved = photos.rename(tmp_path / "moved")
    assert start(small, moved, tmp_path / "run").images == 4


# Locks and temporary files


def test_second_writer_is_refused(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_files, "LOCK_TIMEOUT", 0.1)
    out = tmp_path / "run"
    out.mkdir()
    with part_files.locked(out, (0, 1)):
        with pytest.raises(UsageError, match=r"being written by another process \(shard 0/1\)"):
            start(small, photos, out)
        with pytest.raises(UsageError, match="being written as shard 0/1; use the same number of shards"):
            start(small, photos, out, shard="0/2")
    with part_files.locked(out, (0, 2)):
        assert start(small, photos, out, shard="1/2").parts_left == 2
    assert start(small, photos, out).parts_left == 0


@pytest.mark.parametrize("text", ["1/1", "2/2", "-1/2", "a/b", "1", "0/0", ""])
def test_invalid_shards(text: str) -> None:
    with pytest.raises(UsageError, match="give i/n with i from 0 to n-1"):
        parse_shard(text)


def test_temporary_files_of_this_job_are_removed(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    """Files of other jobs and of the user stay."""
    out = tmp_path / "run"
    start(small, photos, out)
    name = sorted(part_contents(out))[1]
    own, other = out / f".{name}.77-abcd.tmp", out / ".part-000001-of-000003.0123456789ab.parquet.77-abcd.tmp"
    own.touch()
    other.touch()
    (out / "notes.txt").write_text("mine")
    start(small, photos, out)
    assert not own.exists() and other.exists() and (out / "notes.txt").exists()


# Interruptions and errors of the disk


def test_full_disk_keeps_finished_parts(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(small, photos, tmp_path / "run", shard="0/2")
    before = part_contents(tmp_path / "run")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(part_files.os, "fsync", refuse)
    with pytest.raises(UsageError, match="the disk is full"):
        start(small, photos, tmp_path / "run", shard="1/2")
    assert part_contents(tmp_path / "run") == before and not temporary_files(tmp_path / "run")


@pytest.mark.parametrize("step", ["before rename", "after rename"])
def test_log_matches_the_files_after_an_interruption(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    out, steps = tmp_path / "run", []

    def reached(name: str) -> None:
        steps.append(name)
        if steps.count(step) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(part_files, "reached", reached)
    with pytest.raises(KeyboardInterrupt):
        start(small, photos, out)
    events = read_events(out)
    finished = [event["part"] for event in events if event["event"] == "part"]
    assert finished == ([0] if step == "before rename" else [0, 1]) and len(finished) == len(part_contents(out))
    end = {name: events[-1][name] for name in ("how", "images", "failed", "parts_left")}
    assert end == {
        "how": "interrupted", "images": 4 * len(finished), "failed": 0, "parts_left": 3 - len(finished),
    }  # fmt: skip


def test_interrupted_retry_counts_no_old_parts(
    small: seewhy.LoadedModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "ant" / "bad.png").write_bytes(b"no")
    out = tmp_path / "run"
    start(small, photos, out)

    def interrupt(name: str) -> None:
        if name == "before rename":
            raise KeyboardInterrupt

    monkeypatch.setattr(part_files, "reached", interrupt)
    with pytest.raises(KeyboardInterrupt):
        start(small, photos, out, retry_failed=True)
    *_, started, ended = [event for event in read_events(out) if event["event"] != "note"]
    assert (started["event"], ended["how"], ended["images"], ended["parts_left"]) == ("started", "interrupted", 0, 0)


# Outcome


WROTE = "Wrote my run/part-*.parquet."


@pytest.mark.parametrize(
    ("outcome", "lines"),
    [
        (Outcome(10, 0, 0, 3, 0, 2.0), ["10 images in 2 s, 5.0 per second", f"{WROTE} Next: seewhy summary 'my run'"]),
        (
            Outcome(0, 11, 0, 3, 0, 1.0),
            ["0 images in 1 s; 11 were finished before", f"{WROTE} Next: seewhy summary 'my run'"],
        ),
        (
            Outcome(4, 0, 1, 3, 2, 1.0),
            [
                "4 images in 1 s, 4.0 per second",
                "1 image failed; see the error column. When the cause is corrected, --retry-failed computes their parts again.",
                f"{WROTE} 2 of 3 parts are left to other shards.",
            ],
        ),
    ],
    ids=["complete", "nothing to do", "failed and sharded"],
)
def test_outcome_says_what_to_do_next(outcome: Outcome, lines: list[str]) -> None:
    assert outcome.summary(Path("my run")).split("\n") == lines


def test_explain_all(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    run = seewhy.explain_all(
        small, photos, tmp_path / "run", targets=["predicted", "label"], layers="every", workers=0, quiet=True, seed=3
    )
    assert run.complete and len(run) == 20 and run.settings["seed"] == 3
    with pytest.raises(UnknownName, match="no engine 'rya'"):
        seewhy.explain_all(small, photos, tmp_path / "run", engine="rya")
