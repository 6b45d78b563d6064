"""Batches: out-of-memory, tuning, images that fail alone, and the plan that all processes share."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import seewhy
from seewhy.bulk.batch_explainer import BatchExplainer
from seewhy.bulk.discovery import find_dataset
from seewhy.bulk.plan import make_plan, store_plan
from seewhy.bulk.settings import BulkOptions, BulkSettings, Execution
from seewhy.errors import UnknownName, UsageError
from seewhy.tracing.model_errors import is_caused_by_memory, is_device_error
from support.bulk_jobs import BATCH_SIZES, OutOfMemoryAboveThree, SmallNetwork, batch_items, load_small, start


def test_batch_size_is_halved_on_out_of_memory_and_stays(photos: Path) -> None:
    loaded = load_small(OutOfMemoryAboveThree())
    notes: list[str] = []
    explainer = BatchExplainer(loaded, BulkSettings(), batch_size=8, memory=1, log=notes.append)
    items = batch_items(loaded, photos)
    rows = explainer.rows(items[:8]).to_pylist()
    assert [row["id"] for row in rows] == [item.image.item.id for item in items[:8]]
    assert not any(row["error"] for row in rows)
    assert explainer.batch_size == 2 and notes == [
        f"not enough memory for a batch of {size} images; using batches of {size // 2} from now on" for size in (8, 4)
    ]
    BATCH_SIZES.clear()
    explainer.rows(items[8:])
    assert max(BATCH_SIZES) <= 2


def test_image_that_does_not_fit_into_memory_alone_fails(photos: Path) -> None:
    class AlwaysOutOfMemory(SmallNetwork):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    loaded = load_small(AlwaysOutOfMemory())
    explainer = BatchExplainer(loaded, BulkSettings(), batch_size=4, memory=1, is_validated=True)
    assert {row["error"] for row in explainer.rows(batch_items(loaded, photos)[:4]).to_pylist()} == {
        "not enough memory"
    }


def test_first_error_is_raised_until_the_settings_are_validated(photos: Path) -> None:
    """The same error becomes a row once an image was explained with these settings."""
    loaded = load_small()
    items = batch_items(loaded, photos)[:2]
    settings = BulkSettings(targets=("17",))
    with pytest.raises(UsageError, match="the model has 4 classes"):
        BatchExplainer(loaded, settings, batch_size=2, memory=1).rows(items)
    rows = BatchExplainer(loaded, settings, batch_size=2, memory=1, is_validated=True).rows(items).to_pylist()
    assert all("the model has 4 classes" in row["error"] for row in rows)


def test_batch_size_is_tuned_once(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    loaded = load_small(OutOfMemoryAboveThree())
    explainer = BatchExplainer(loaded, BulkSettings(), batch_size=1, memory=1)
    assert explainer.tune_batch_size(batch_items(loaded, photos)[0], 64) == 1  # a batch of four does not fit
    job = tmp_path / "run" / "job.json"
    start(small, photos, tmp_path / "run", batch_size=None, shard="0/2")
    size = json.loads(job.read_text())["batch_size"]
    assert size in (1, 2)  # at most a quarter of the images
    start(small, photos, tmp_path / "run", batch_size=None, shard="1/2")
    assert json.loads(job.read_text())["batch_size"] == size


def test_first_stored_plan_wins(small: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    dataset = find_dataset([str(photos)], 4)
    plan = make_plan(small, dataset, BulkSettings(), 4)
    out = tmp_path / "run"
    out.mkdir()
    first = store_plan(replace(plan, batch_size=4, layers=("features.0",), methods=("gradcam",)), out)
    late = store_plan(replace(plan, batch_size=2, layers=("features.3",), methods=("gradcam",)), out)
    assert late == first and late.layers == ("features.0",)
    other = make_plan(small, dataset, BulkSettings(targets=("top2",)), 4)
    with pytest.raises(UsageError, match="targets: predicted in the run, top2 now"):
        store_plan(replace(other, batch_size=2), out)
    assert [path.name for path in out.iterdir()] == ["job.json"]


def test_causes_of_errors_are_searched() -> None:
    memory = RuntimeError("failed")
    memory.__cause__ = RuntimeError("CUDA error: out of memory")
    device = UsageError("failed")
    device.__context__ = RuntimeError("CUDA error: device-side assert triggered")
    assert is_caused_by_memory(memory) and not is_device_error(memory)
    assert is_device_error(device) and not is_caused_by_memory(device)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"methods": "all"}, UsageError, '"all" and "fast" are not allowed'),
        ({"methods": ["gradcan"]}, UnknownName, "'gradcam'"),
        ({"targets": []}, UsageError, "the list of targets is empty"),
        ({"targets": "point:espresso@1,2"}, UsageError, "a position is valid for one image only"),
        ({"store": "int4"}, UnknownName, "uint8 or float16"),
        ({"read_at": "conv"}, UnknownName, "convolution"),
    ],
)
def test_settings_that_a_bulk_job_does_not_support(
    options: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        _ = BulkOptions(**options).settings  # type: ignore[arg-type]


def test_default_settings_and_one_name_instead_of_a_list() -> None:
    assert BulkOptions().settings == BulkSettings()
    assert BulkOptions(methods="gradcam", layers="every", targets="label", versus="bee").settings == BulkSettings(
        methods=("gradcam",), layers=("every",), targets=("label",), versus=("bee",)
    )


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"part_size": 0}, {"workers": -1}, {"actors": 0}, {"engine": "rya"}, {"shard": "3"}]
)
def test_execution_options_are_validated(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Execution(**options)  # type: ignore[arg-type]


class Cropped(SmallNetwork):
    """Sees a part of its input, mirrored."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs[:, :, 2:-4, 4:-2].flip(3))


def test_rows_of_a_network_that_crops_store_its_cells_and_the_rectangle_that_it_sees(photos: Path) -> None:
    loaded, plain = load_small(Cropped()), load_small()
    items = batch_items(loaded, photos)[:3]
    settings = BulkSettings()
    rows, full = (
        BatchExplainer(one, settings, batch_size=4, memory=1).rows(items).to_pylist() for one in (loaded, plain)
    )
    for row, other in zip(rows, full, strict=True):
        height, width = other["input"]
        assert row["input"] == [height - 6, width - 6]
        left, top, right, bottom = other["view"]
        across, down = (right - left) / width, (bottom - top) / height
        expected = [left + 4 * across, top + 2 * down, right - 2 * across, bottom - 4 * down]
        assert row["view"] == pytest.approx(expected, rel=1e-4)
        assert all(rows_ * columns <= height * width / 4 for rows_, columns in row["shapes"])  # cells, not pixels
