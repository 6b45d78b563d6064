"""`--check`: the columns, their agreement with the main command and between batch sizes, and models that cannot be checked."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from torch import Tensor, nn

import seewhy
from seewhy.bulk import engines, part_files
from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.dataset import SinglePart
from seewhy.bulk.discovery import find_dataset
from seewhy.bulk.engines import Actor
from seewhy.bulk.job import make_label_resolver
from seewhy.bulk.plan import make_plan
from seewhy.bulk.row_values import CHECK_COLUMNS
from seewhy.bulk.rows import CHECKED_SCHEMA, SCHEMA
from seewhy.bulk.settings import BulkSettings
from seewhy.bulk.worker import Job, Resources
from seewhy.cli import main as cli
from seewhy.errors import UsageError
from seewhy.explanation.checks import VERDICTS
from seewhy.images.view import View
from support.bulk_jobs import part_contents, read_notes
from support.color_runs import LABELS, copy_run
from support.spot_runs import Noisy, Spots, load_spots, run_spots, write_spots

SIZES: list[int] = []  # of forward passes; module-level, because the model's twin would have its own list


class Counted(Spots):
    def forward(self, inputs: Tensor) -> Tensor:
        SIZES.append(len(inputs))
        return super().forward(inputs)


class FailsOnCovered(Spots):
    """Raises an error for images that are blurred, if they show a red spot."""

    def forward(self, inputs: Tensor) -> Tensor:
        is_red = inputs[:, 0].amax((1, 2)) > inputs[:, 1:].amax((1, 2, 3))
        if (is_red & (inputs.diff(dim=3).abs().mean((1, 2, 3)) < 0.02)).any():  # noise is blurred
            raise RuntimeError("no contrast")
        return super().forward(inputs)


class MemoryForThree(Spots):
    """Runs out of memory for more than three images."""

    def forward(self, inputs: Tensor) -> Tensor:
        SIZES.append(len(inputs))
        if len(inputs) > 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        return super().forward(inputs)


class LostOnCovered(Spots):
    """Loses its device when the first image is covered."""

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > 5:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().forward(inputs)


class Regions(Spots):
    """Returns scores for each cell, as a segmentation network."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.cells(inputs).movedim(1, -1)).movedim(-1, 1)


class Half(Spots):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.bfloat16())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_spots(folder, [number % 3 for number in range(11)])
    return folder


def checks_of(run: BulkRun) -> dict[tuple[str, str, str, str], tuple[str, float | None, float | None, str | None]]:
    """Return the checks of a run by image, target, method and layer."""
    names = ["id", "target", "method", "layers", "error", *CHECK_COLUMNS]
    return {
        (row["id"], row["target"], row["method"], layer): check
        for row in run.to_table(names).to_pylist()
        if row["error"] is None
        for layer, *check in zip(row["layers"], *(row[name] for name in CHECK_COLUMNS), strict=True)
    }  # type: ignore[misc]


def assert_same(first: Any, second: Any) -> None:
    """Compare checks. Correlations may differ by rounding."""
    assert first.keys() == second.keys()
    for key, (verdict, r, p, reason) in first.items():
        assert (verdict, p, reason) == (second[key][0], second[key][2], second[key][3]), key
        assert r == pytest.approx(second[key][1], abs=1e-4)


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> BulkRun:
    return run_spots(load_spots(), photos, tmp_path_factory.mktemp("run") / "run", methods=("gradcam", "hirescam"))


def test_columns_of_a_checked_run(run: BulkRun) -> None:
    assert run.has_checks and run.table.schema == run.schema == CHECKED_SCHEMA
    for row in run.table.to_pylist():
        if row["error"] is not None:
            assert [row[name] for name in CHECK_COLUMNS] == [None] * 4
            continue
        for check, r, p, reason in zip(*(row[name] for name in CHECK_COLUMNS), strict=True):
            assert check in VERDICTS and (r is None) == (p is None) == (reason is not None) == (check == "not checked")
    verdicts = [check[0] for check in checks_of(run).values()]
    assert len(verdicts) == 11 * 2 * 2 and verdicts.count("confirmed") > 10
    frame = run.to_pandas(method="gradcam", layer="features.0")
    assert set(frame["check"]) <= set(VERDICTS) and frame["check_r"].dtype == float


def test_columns_of_a_run_without_the_check(photos: Path, tmp_path: Path) -> None:
    run = run_spots(load_spots(), photos, tmp_path / "run", check=False)
    assert not run.has_checks and run.table.schema == run.schema == SCHEMA
    assert "check" not in run.settings and "check" not in run.to_pandas()
    with pytest.raises(UsageError, match="columns or where"):
        run.to_table(["check"])


@pytest.mark.parametrize("fast", ["exact", "off"])
def test_batch_size_does_not_change_the_checks(fast: Any, photos: Path, tmp_path: Path) -> None:
    settings = {"targets": ("predicted", "top2", "blue"), "fast": fast}
    runs = [run_spots(load_spots(), photos, tmp_path / str(size), size, **settings) for size in (1, 5)]
    assert_same(*map(checks_of, runs))


def test_checks_are_those_of_the_main_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("coffee", "chelsea"):
        shutil.copy(seewhy.sample(name), tmp_path / f"{name}.png")
    command = ["bulk", str(tmp_path), "--out", str(tmp_path / "run"), "--workers", "0", "--batch-size", "2", "--check"]
    options = ["--methods", "gradcam,hirescam", "--layers", "bn2,blocks.5.0"]
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command, *options])
    found = checks_of(BulkRun.read(tmp_path / "run"))
    for name in ("coffee", "chelsea"):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="0"):
            cli.main([str(tmp_path / f"{name}.png"), *options, "--out", str(tmp_path / "single"), "--json"])
        record = json.loads(capsys.readouterr().out)
        for one in record["maps"]:
            verdict, r, p, _ = found[f"{name}.png", "top1", one["method"], one["layer"]]
            assert verdict == one["check"]["verdict"]
            assert r == pytest.approx(one["check"].get("r"), abs=1e-3)
            assert p == one["check"].get("p")
        assert len(record["maps"]) == 4


def test_checks_are_those_of_the_python_function(run: BulkRun, photos: Path) -> None:
    found = checks_of(run)
    for path in sorted(photos.glob("0*.png")):
        e = seewhy.explain(load_spots(), path, layers=["features.0", "features.1"], methods=["gradcam", "hirescam"])
        for (method, _, layer), (check,) in seewhy.trust.check(load_spots(), e).checks.items():
            verdict, r, _, reason = found[path.name, "top1", method, layer]
            assert verdict == check.verdict and reason == (check.reason or None)
            assert r == pytest.approx(check.r, abs=1e-4) if check.verdict != "not checked" else r is None


def test_interrupted_job_resumes_with_the_same_rows(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = part_contents(run_spots(load_spots(), photos, tmp_path / "entire").folder)
    steps: list[str] = []

    def interrupt(step: str) -> None:
        steps.append(step)
        if steps.count("before rename") == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(part_files, "reached", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_spots(load_spots(), photos, tmp_path / "run")
    assert len(part_contents(tmp_path / "run")) == 1
    assert part_contents(run_spots(load_spots(), photos, tmp_path / "run").folder) == expected


def test_check_is_part_of_the_job(photos: Path, tmp_path: Path) -> None:
    run_spots(load_spots(), photos, tmp_path / "with")
    run_spots(load_spots(), photos, tmp_path / "without", check=False)
    with pytest.raises(UsageError, match=r"other settings: check: True in the run, False now\. Choose"):
        run_spots(load_spots(), photos, tmp_path / "with", check=False)
    with pytest.raises(UsageError, match=r"other settings: check: False in the run, True now\. Choose"):
        run_spots(load_spots(), photos, tmp_path / "without")


def test_explain_all_checks(photos: Path, tmp_path: Path) -> None:
    run = seewhy.explain_all(load_spots(), photos, tmp_path / "run", check=True, workers=0, batch_size=4, quiet=True)
    assert run.settings["check"] is True and len(checks_of(run)) == 11


@pytest.mark.parametrize("network", [Spots, Noisy])
def test_two_threads_write_the_rows_of_one(
    network: type[nn.Module], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for number, count in enumerate((1, 2, 2)):
        monkeypatch.setattr(engines, "explainer_count", lambda model, count=count: count)
        torch.manual_seed(1)
        run = run_spots(load_spots(network()), photos, tmp_path / str(number), 2, targets=("predicted", "top2"))
        rows.append(run.table.to_pylist())
    assert rows[0] == rows[1] == rows[2]


def test_an_actor_writes_the_columns(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_spots()
    dataset = find_dataset([str(photos)], 6)
    settings = BulkSettings(layers=("features.0", "features.1"), check=True, methods=("gradcam", "hirescam"))
    plan = replace(make_plan(loaded, dataset, settings, 6), batch_size=5)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda reference: reference))
    job = Job(loaded, SinglePart(()), plan, tmp_path, Resources(workers=0), make_label_resolver(loaded, dataset))
    actor = Actor([pickle.loads(pickle.dumps(job))], gpu=False, threads=1)
    for part in (0, 1):
        actor({"part": np.array([part]), "source": [pickle.dumps(dataset.single_part(part))]})
    tables = [parquet.read_table(path) for path in sorted(tmp_path.glob("part-*"))]
    assert [table.schema.remove_metadata() for table in tables] == [CHECKED_SCHEMA] * 2
    assert set(pa.concat_tables(tables)["check"].combine_chunks().flatten().to_pylist()) <= {*VERDICTS}


# Cost


@pytest.mark.parametrize("targets", [("predicted",), ("predicted", "top2", "output:0")])
def test_number_of_forward_passes(targets: tuple[str, ...], photos: Path, tmp_path: Path) -> None:
    """28 covered images, which all layers, methods and targets share, and 5 passes that prepare for them."""
    rows = []
    for check in (False, True):
        settings = {"targets": targets, "fast": "off", "check": check, "methods": ("gradcam", "layercam")}
        loaded = load_spots(Counted())
        run_spots(loaded, photos, tmp_path / f"{check} first", 11, **settings)  # properties of the model are cached
        SIZES.clear()
        run_spots(loaded, photos, tmp_path / str(check), 11, **settings)
        rows.append(sum(SIZES))
    assert 11 * 28 <= rows[1] - rows[0] <= 11 * 33


def test_targets_that_are_one_class_share_the_passes(photos: Path, tmp_path: Path) -> None:
    """`explain` merges the same class under two names, and bulk explains it again for its own rows."""
    counts = []
    for targets in (("red",), ("red", "0")):
        loaded = load_spots(Counted())
        run_spots(loaded, photos, tmp_path / f"{targets} first", 1, targets=targets, fast="off")
        SIZES.clear()
        run = run_spots(loaded, photos, tmp_path / str(targets), 1, targets=targets, fast="off")
        counts.append(sum(SIZES))
    assert 0 < counts[1] - counts[0] < 11 * 28
    found = checks_of(run)
    assert_same(*({(key[0], *key[2:]): one for key, one in found.items() if key[1] == name} for name in ("red", "0")))


# Models and targets that cannot be checked


def test_random_numbers_are_the_reason_for_every_batch_size(photos: Path, tmp_path: Path) -> None:
    for size in (1, 5):
        run = run_spots(load_spots(Noisy()), photos, tmp_path / str(size), size)
        assert {check[0] for check in checks_of(run).values()} == {"not checked"}
        assert {check[3] for check in checks_of(run).values()} == {
            "Noisy draws random numbers, so its scores change each time"
        }
        notes = [note for note in read_notes(run.folder) if "were not checked" in note]
        assert len(notes) == 1 and [row["id"] for row in run.failed] == ["broken.png"]


@pytest.mark.parametrize("fast", ["exact", "off"])
def test_an_image_on_which_the_model_fails_when_covered(fast: Any, photos: Path, tmp_path: Path) -> None:
    plain = checks_of(run_spots(load_spots(), photos, tmp_path / "plain", fast=fast))
    for size in (1, 5):
        run = run_spots(load_spots(FailsOnCovered()), photos, tmp_path / str(size), size, fast=fast)
        assert [row["id"] for row in run.failed] == ["broken.png"]
        found = checks_of(run)
        failed = {
            key for key, check in found.items() if (check[3] or "").startswith("the model fails on covered images")
        }
        names = run.to_table(["id", "target_name"]).to_pylist()
        assert failed and {key[0] for key in failed} <= {row["id"] for row in names if row["target_name"] == "red"}
        assert "no contrast" in str(found[min(failed)][3])
        others = found.keys() - failed
        assert_same({key: found[key] for key in others}, {key: plain[key] for key in others})


def test_lack_of_memory_reduces_the_batches_of_covered_images(photos: Path, tmp_path: Path) -> None:
    SIZES.clear()
    run = run_spots(load_spots(MemoryForThree()), photos, tmp_path / "run", 2, fast="off")
    assert_same(checks_of(run), checks_of(run_spots(load_spots(), photos, tmp_path / "plain", 2, fast="off")))
    notes = [note for note in read_notes(run.folder) if "covered images" in note]
    assert notes[-1].endswith("the check runs them one at a time from now on")
    assert max(SIZES[len(SIZES) // 2 :]) <= 3


def test_lost_device_ends_the_job(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the device failed"):
        run_spots(load_spots(LostOnCovered()), photos, tmp_path / "run", 2)
    assert not list((tmp_path / "run").glob("part-*"))


@pytest.mark.parametrize("targets", [("output:0",), ("red", "top2"), ("probability:red", "logprobability:blue")])
def test_other_targets(targets: tuple[str, ...], photos: Path, tmp_path: Path) -> None:
    runs = [run_spots(load_spots(), photos, tmp_path / str(size), size, targets=targets) for size in (1, 5)]
    assert_same(*map(checks_of, runs))
    assert {key[1] for key in checks_of(runs[0])} >= set(targets)
    assert any(check[0] != "not checked" for check in checks_of(runs[0]).values())


@pytest.mark.parametrize("target", ["predicted", "label", "region:red"])
def test_dense_targets(target: str, photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    lines = [f"{photos / f'{number:02d}.png'},{LABELS[number % 3]}" for number in range(11)]
    table.write_text("\n".join(["path,label", *lines]))
    runs = [run_spots(load_spots(Regions()), table, tmp_path / str(size), size, targets=(target,)) for size in (1, 5)]
    assert_same(*map(checks_of, runs))
    assert any(check[0] != "not checked" for check in checks_of(runs[0]).values())


def test_labels_as_targets(photos: Path, tmp_path: Path) -> None:
    """Every image has its own class, which is the predicted class of some."""
    table = tmp_path / "table.csv"
    lines = [f"{photos / f'{number:02d}.png'},{LABELS[number % 2]}" for number in range(11)]
    table.write_text("\n".join(["path,label", *lines, f"{photos / 'broken.png'},red", f"{photos / '00.png'},unknown"]))
    runs = [run_spots(load_spots(), table, tmp_path / str(n), n, targets=("predicted", "label")) for n in (1, 5)]
    assert_same(*map(checks_of, runs))
    assert [row["error"].partition(" that")[0] for row in runs[1].failed] == [
        "not an image", "its label 'unknown' is not a class of the model"
    ]  # fmt: skip


class KeepSize:
    """Preprocessing that keeps the size of the photo."""

    def __call__(self, image: Any) -> tuple[Tensor, View]:
        pixels = np.array(image, np.float32) / 255
        return torch.from_numpy(pixels).movedim(-1, 0)[None], View.identity(pixels.shape[:2])


def test_inputs_of_different_sizes(photos: Path, tmp_path: Path) -> None:
    """The inputs of a batch do not fit into one tensor, so the images are explained one by one."""
    loaded = replace(load_spots(), preprocess=KeepSize())
    run = run_spots(loaded, photos, tmp_path / "run", 5)
    sizes = {tuple(size) for size in run.table["input"].drop_null().to_pylist()}
    assert len(sizes) > 3
    inputs, _ = KeepSize()(Image.open(photos / "05.png"))
    e = seewhy.explain(load_spots(), inputs, layers="features.0")
    (check,) = seewhy.trust.check(load_spots(), e)[0].checks.values()
    verdict, r, _, _ = checks_of(run)["05.png", "top1", "gradcam", "features.0"]
    assert verdict == check[0].verdict != "not checked" and r == pytest.approx(check[0].r, abs=1e-4)


def test_half_precision(photos: Path, tmp_path: Path) -> None:
    """The scores of an image differ between batches by more than those of other types."""
    run = run_spots(load_spots(Half().bfloat16()), photos, tmp_path / "run", 5)
    assert any(check[0] != "not checked" for check in checks_of(run).values())


# Reading


CHANGES: dict[str, dict[str, Any]] = {
    "check contains an unknown verdict": {"check": ["perfect", "confirmed"]},
    "check_r has a value": {"check_r": [2.0, 0.0]},
    "check_p has a value": {"check_p": [-1.0, 0.0]},
    "check_reason and layers have different numbers": {"check_reason": [None]},
    "check does not fit": {"check": None},
    "check_reason has a text": {"check_reason": ["x" * 300_000, None]},
}


@pytest.mark.parametrize("message", CHANGES)
def test_damaged_columns_are_refused(message: str, run: BulkRun, tmp_path: Path) -> None:
    copy = copy_run(run, tmp_path / "run", lambda row: row.update(CHANGES[message]))
    with pytest.raises(UsageError, match=message):
        copy.to_table()


def test_a_part_without_the_columns_is_refused(run: BulkRun, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    copy = BulkRun.read(tmp_path / "run")
    table = parquet.read_table(copy.files[0])
    parquet.write_table(table.drop_columns(list(CHECK_COLUMNS)), copy.files[0])
    with pytest.raises(UsageError, match="check"):
        copy.to_table()
