"""Sinks: a folder with animations, a real event file of TensorBoard, and the calls that W&B and MLflow receive."""

from __future__ import annotations

import io
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy import storage
from seewhy.errors import OptionError, UsageError
from seewhy.integrations import FolderSink, LoggedImage, MlflowSink, TensorBoardSink, TrainingMaps, WandbSink
from seewhy.integrations.sinks.animation import encode_animation, read_png, spread
from seewhy.integrations.sinks.parsing import as_sinks
from support.training_runs import Memory, bright_squares, make_net, nothing, same, train


def frame(shade: int, name: str = "cat", size: tuple[int, int] = (30, 20)) -> LoggedImage:
    return LoggedImage(name, Image.new("RGB", size, (shade, 2 * shade, 3)), f"shade {shade}")


def shades(path: Path) -> list[int]:
    """Return the first pixel of each frame of an animation."""
    with Image.open(path) as animation:
        frames = []
        for number in range(getattr(animation, "n_frames", 1)):
            animation.seek(number)
            frames.append(animation.convert("RGB").getpixel((3, 3))[0])  # type: ignore[index]
        return frames


# The folder


def test_a_frame_per_step_and_an_animation(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path / "maps", milliseconds=100)
    for step in (0, 500, 1000):
        sink.log([frame(step // 10, "cat"), frame(step // 10 + 1, "dog")], step)
        assert len(shades(tmp_path / "maps" / "cat.png")) == step // 500 + 1  # readable at any time
    assert shades(tmp_path / "maps" / "cat.png") == [0, 50, 100]
    assert shades(tmp_path / "maps" / "dog.png") == [1, 51, 101]
    names = sorted(path.relative_to(tmp_path / "maps").as_posix() for path in (tmp_path / "maps").rglob("*.png"))
    assert names == sorted(
        ["cat.png", "dog.png", *(f"{name}/step_{step:08d}.png" for name in ("cat", "dog") for step in (0, 500, 1000))]
    )
    assert all(storage.is_own(path) for path in (tmp_path / "maps").rglob("*.png"))
    with Image.open(tmp_path / "maps" / "cat.png") as animation:
        assert animation.info["loop"] == 0 and animation.info["duration"] == 100
        animation.seek(2)
        assert animation.info["duration"] == 1500


def test_frames_are_the_images_without_loss(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), np.uint8)
    sink = FolderSink(tmp_path)
    for step, pixels in enumerate(noise):
        sink.log([LoggedImage("a", Image.fromarray(pixels), "")], step)
    with Image.open(tmp_path / "a.png") as animation:
        for number, pixels in enumerate(noise):
            animation.seek(number)
            assert np.array_equal(np.asarray(animation.convert("RGB")), pixels)


def test_a_resumed_run_continues_and_a_new_run_starts_again(tmp_path: Path) -> None:
    first = FolderSink(tmp_path)
    for step in (0, 10, 20, 30):
        first.log([frame(step)], step)
    resumed = FolderSink(tmp_path)  # from a checkpoint at step 15: steps 20 and 30 are computed again
    resumed.log([frame(25)], 20)
    assert shades(tmp_path / "cat.png") == [0, 10, 25]
    resumed.log([frame(35)], 30)
    assert shades(tmp_path / "cat.png") == [0, 10, 25, 35]
    FolderSink(tmp_path).log([frame(99)], 0)
    assert shades(tmp_path / "cat.png") == [99]


def test_long_runs_show_evenly_spread_steps(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path, max_frames=5)
    for step in range(9):
        sink.log([frame(step)], step)
    assert shades(tmp_path / "cat.png") == [0, 2, 4, 6, 8]
    assert len(list((tmp_path / "cat").iterdir())) == 9
    assert all(len(spread(count, 60)) == min(count, 60) == len(set(spread(count, 60))) for count in range(1, 200))


def test_damaged_and_other_frames_are_skipped(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    sink.log([frame(1)], 1)
    content = (tmp_path / "cat" / "step_00000001.png").read_bytes()
    (tmp_path / "cat" / "step_00000002.png").write_bytes(content[:-20])
    (tmp_path / "cat" / "step_00000003.png").write_bytes(content.replace(b"IDAT", b"IDAX"))
    (tmp_path / "cat" / "notes.txt").write_text("mine")
    sink.log([frame(4)], 4)
    assert shades(tmp_path / "cat.png") == [1, 4]
    sink.log([frame(5, size=(31, 20))], 5)  # another size, for example with another side=
    assert shades(tmp_path / "cat.png") == [5]


def test_files_of_the_user_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="did not write it"):
        FolderSink(tmp_path).log([frame(1)], 1)
    assert (tmp_path / "cat.png").read_bytes() == b"mine"
    (tmp_path / "cat.png").unlink()
    (tmp_path / "cat" / "step_00000007.png").write_bytes(b"mine")
    FolderSink(tmp_path).log([frame(1)], 1)
    assert (tmp_path / "cat" / "step_00000007.png").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    maps = TrainingMaps(bright_squares(1, 0)[0], every=2, sinks=tmp_path / "file" / "maps", layers="conv2")
    with pytest.warns(RuntimeWarning, match=r"disabled from step 2 on: .*file is not a folder.* Training continues\."):
        logged = train(make_net(), maps.step, steps=4)
    assert same(logged, train(make_net(), nothing, steps=4))


def test_wrong_settings() -> None:
    for options, text in (({"milliseconds": 5}, "milliseconds=5"), ({"max_frames": 1}, "max_frames=1")):
        with pytest.raises(OptionError, match=text):
            FolderSink("maps", **options)
    with pytest.raises(UsageError, match="empty"):
        FolderSink("")


def test_an_animation_of_one_frame_is_a_png() -> None:
    part = read_png(storage.encode_png(Image.new("RGB", (5, 4), (7, 8, 9))))
    assert part is not None and part.size == (5, 4)
    with Image.open(io.BytesIO(encode_animation([part], [100]))) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (7, 8, 9)
    assert read_png(b"GIF89a") is None and read_png(b"") is None


# TensorBoard


@pytest.mark.filterwarnings("ignore")  # of tensorboard and protobuf
def test_tensorboard_files_contain_the_images(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    images = [frame(1), frame(2)]
    sink = TensorBoardSink(tmp_path / "own")
    assert not (tmp_path / "own").exists()  # created with the first images
    sink.log(images[:1], 500)
    sink.log(images[1:], 1000)
    sink.close()
    writer = SummaryWriter(tmp_path / "given")
    (given,) = as_sinks(writer)
    given.log(images[:1], 500)
    given.close()
    writer.add_scalar("loss", 1.0, 1)  # the writer of the user is still open
    writer.close()
    for folder, steps in (("own", [500, 1000]), ("given", [500])):
        events = EventAccumulator(str(tmp_path / folder)).Reload()
        found = events.Images("seewhy/cat")
        assert [event.step for event in found] == steps
        for event, logged in zip(found, images, strict=False):
            with Image.open(io.BytesIO(event.encoded_image_string)) as image:
                assert np.array_equal(np.asarray(image), np.asarray(logged.image))


def test_tensorboard_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'seewhy\[tensorboard\]'"):
        TensorBoardSink("runs")
    with pytest.raises(UsageError, match="writer=3: pass a SummaryWriter"):
        TensorBoardSink(3)  # type: ignore[arg-type]


# Weights & Biases, MLflow: fakes with the signatures of the real packages


class FakeRun:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.metrics: list[tuple[str, str]] = []

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        assert step is None and commit is None
        self.rows.append(data)

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics.append((name, str(step_metric)))


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("wandb")
    module.Image = lambda data, caption=None: (data, caption)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)


def test_wandb_rows(fake_wandb: None) -> None:
    run = FakeRun()
    (sink,) = as_sinks(run)
    images = [frame(1), frame(2, "dog")]
    sink.log(images, 500)
    sink.log(images, 1000)
    sink.close()
    assert run.metrics == [("seewhy/*", "seewhy/step")]
    assert [row["seewhy/step"] for row in run.rows] == [500, 1000]
    assert run.rows[0]["seewhy/dog"] == (images[1].image, "shade 2")
    other = FakeRun()
    WandbSink(other, step_metric="trainer/global_step").log(images, 3)
    assert other.metrics == [] and other.rows[0]["trainer/global_step"] == 3


def test_wandb_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match="pip install wandb"):
        WandbSink(FakeRun())


@pytest.mark.filterwarnings("ignore")
def test_a_real_offline_run_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(mode="offline", dir=tmp_path, project="maps") as run:
        (sink,) = as_sinks(run)
        assert isinstance(sink, WandbSink)
        sink.log([frame(1)], 500)
        sink.log([frame(2)], 1000)
    assert len(list(tmp_path.rglob("media/images/seewhy/cat_*.png"))) == 2


class FakeClient:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def log_image(
        self, run_id: str, image: Any, artifact_file: str | None = None, key: str | None = None, step: int | None = None
    ) -> None:
        assert artifact_file is None
        self.calls.append((run_id, np.asarray(image)[0, 0, 0], key, step))


def test_mlflow_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient()
    MlflowSink("1a", client).log([frame(5), frame(6, "dog")], 500)
    assert client.calls == [("1a", 5, "seewhy/cat", 500), ("1a", 6, "seewhy/dog", 500)]
    module = types.ModuleType("mlflow")
    module.active_run = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    with pytest.raises(UsageError, match=r"no active run: call mlflow.start_run\(\) first"):
        MlflowSink()
    module.active_run = lambda: types.SimpleNamespace(info=types.SimpleNamespace(run_id="2b"))  # type: ignore[attr-defined]
    module.MlflowClient = FakeClient  # type: ignore[attr-defined]
    assert MlflowSink().run_id == "2b"
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match="pip install mlflow-skinny"):
        MlflowSink()
    for arguments, text in (((3,), "run_id=3"), (("1a", "client"), "client='client'")):
        with pytest.raises(UsageError, match=text):
            MlflowSink(*arguments)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
def test_a_real_run_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with mlflow.start_run():
        MlflowSink().log([frame(5)], 500)
    images = [path for path in (tmp_path / "runs").rglob("*.png") if "step" in path.name]
    assert len(images) == 1 and "500" in images[0].name


def test_several_sinks(tmp_path: Path) -> None:
    memory = Memory()
    sinks = as_sinks([tmp_path, str(tmp_path), memory])
    assert [type(sink) for sink in sinks] == [FolderSink, FolderSink, Memory]
    maps = TrainingMaps(torch.rand(1, 3, 16, 16), every=1, sinks=[os.fspath(tmp_path / "a"), memory], layers="conv2")
    maps.step(0, make_net())
    maps.close()
    assert memory.closed == 1 and (tmp_path / "a" / "image_1.png").exists()
