"""Real Lightning runs with the callback: the same bits as without, steps of the optimizer, loggers, checkpoints, failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from seewhy.errors import UsageError
from seewhy.integrations import LightningCallback, TrainingMaps
from support.training_runs import Memory, bright_squares, make_net, same, state_of

L = pytest.importorskip("lightning.pytorch")
pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning.fabric.utilities.warnings.PossibleUserWarning",
    "ignore::lightning.fabric.utilities.rank_zero.LightningDeprecationWarning",
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
)
IMAGES, TRUE = bright_squares(2, 9)


class Module(L.LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()
        self.final: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("validation", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 3e-3)

    def on_train_end(self) -> None:
        self.final = state_of(self.net, self.optimizers().optimizer)


def loader(count: int, *, shuffle: bool) -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*bright_squares(count, 5)), 8, shuffle=shuffle)


def fit(folder: Path, *callbacks: Any, checkpoint: str | None = None, **options: Any) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(1)
    module = Module()
    settings: dict[str, Any] = {
        "max_steps": 6, "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder, "log_every_n_steps": 1,
    }  # fmt: skip
    trainer = L.Trainer(**{**settings, **options}, callbacks=list(callbacks))
    trainer.fit(module, loader(32, shuffle=True), loader(8, shuffle=False), ckpt_path=checkpoint)
    return trainer, module.final


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [0, 2, 4, 6]),
        ({"accumulate_grad_batches": 2, "max_steps": 3}, [0, 2, 3]),
        ({"precision": "bf16-mixed", "val_check_interval": 2}, [0, 2, 4, 6]),
    ],
    ids=["plain", "accumulated", "mixed precision"],
)
def test_training_is_the_same_bit_for_bit(tmp_path: Path, options: dict[str, Any], steps: list[int]) -> None:
    sink = Memory()
    callback = LightningCallback(TrainingMaps(IMAGES, classes=TRUE, every=2, sinks=sink, layers="net.conv2"))
    _, logged = fit(tmp_path, callback, **options)
    _, expected = fit(tmp_path, **options)
    assert sink.steps == steps and sink.closed == 1
    assert expected["weights"] and same(logged, expected)


def test_the_module_can_be_selected(tmp_path: Path) -> None:
    sink = Memory()
    maps = TrainingMaps(IMAGES, every=4, sinks=sink, layers="conv2")
    trainer, _ = fit(tmp_path, LightningCallback(maps, model=lambda module: module.net))
    assert sink.steps == [0, 4, 6]
    other = Memory()
    TrainingMaps(IMAGES, every=1, sinks=other, layers="conv2").step(6, trainer.lightning_module.net)
    assert [item.caption for item in sink.logged[-1][1]] == [item.caption for item in other.logged[0][1]]


def test_the_loggers_of_the_trainer_are_used(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    maps = TrainingMaps(IMAGES, every=3, layers="net.conv2")
    fit(tmp_path, LightningCallback(maps), logger=[TensorBoardLogger(tmp_path, "tb"), CSVLogger(tmp_path, "csv")])
    events = EventAccumulator(str(tmp_path / "tb" / "version_0")).Reload()
    assert [event.step for event in events.Images("seewhy/image_1")] == [0, 3, 6]
    with Image.open(tmp_path / "tb" / "version_0" / "seewhy_maps" / "image_2.png") as animation:
        assert animation.n_frames == 3  # type: ignore[attr-defined]
    assert not (tmp_path / "csv" / "version_0" / "seewhy_maps").exists()
    fit(tmp_path, LightningCallback(TrainingMaps(IMAGES, every=3, layers="net.conv2")))  # without a logger
    assert (tmp_path / "seewhy_maps" / "image_1.png").exists()


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_continues(tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    checkpoint = ModelCheckpoint(tmp_path / "checkpoints", save_last=True)
    options: dict[str, Any] = {"every": 2, "sinks": tmp_path / "maps", "scale": "shared"}
    maps = TrainingMaps(IMAGES, layers="suggested", **options)
    fit(tmp_path, LightningCallback(maps), checkpoint, enable_checkpointing=True, max_steps=4)
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    resumed = TrainingMaps(IMAGES, layers="suggested", **options)
    _, state = fit(tmp_path, LightningCallback(resumed), checkpoint=last, max_steps=8)
    assert resumed.layers == maps.layers != "suggested"
    names = sorted(path.name for path in (tmp_path / "maps" / "image_1").iterdir())
    assert names == [f"step_{step:08d}.png" for step in (0, 2, 4, 6, 8)]
    with Image.open(tmp_path / "maps" / "image_1.png") as animation:
        assert animation.n_frames == 5  # type: ignore[attr-defined]
    _, expected = fit(tmp_path, checkpoint=last, max_steps=8)
    assert same(state["weights"], expected["weights"]) and same(state["optimizer"], expected["optimizer"])


def test_what_fails_warns_once_and_training_continues(tmp_path: Path) -> None:
    maps = TrainingMaps(IMAGES, every=2, sinks=Memory(), layers="conv9")
    with pytest.warns(
        RuntimeWarning, match="seewhy: training maps are disabled from step 0 on: no layer 'conv9'"
    ) as warnings:
        _, logged = fit(tmp_path, LightningCallback(maps))
    assert sum("seewhy" in str(one.message) for one in warnings) == 1
    assert same(logged, fit(tmp_path)[1])


def test_a_module_without_forward(tmp_path: Path) -> None:
    class Headless(Module):
        forward = L.LightningModule.forward

    trainer = L.Trainer(
        max_steps=0, accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    maps = TrainingMaps(IMAGES, every=2, sinks=Memory())
    with pytest.warns(RuntimeWarning, match=r"has no forward.*pass model="):
        LightningCallback(maps).on_train_start(trainer, Headless())


def test_a_logger_that_cannot_be_used_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.loggers import CSVLogger

    class WandbLogger(CSVLogger):  # type: ignore[misc]
        """Its experiment is not a run of W&B."""

    maps = TrainingMaps(IMAGES, every=6, layers="net.conv2")
    with pytest.warns(RuntimeWarning, match="maps are not logged to one of the loggers: run="):
        fit(tmp_path, LightningCallback(maps), logger=WandbLogger(tmp_path, "run"))
    assert (tmp_path / "run" / "version_0" / "seewhy_maps" / "image_1.png").exists()


def test_invalid_arguments() -> None:
    with pytest.raises(UsageError, match=r"maps=Tensor: pass a seewhy\.integrations\.TrainingMaps"):
        LightningCallback(IMAGES)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="model=Net: pass a function of the LightningModule"):
        LightningCallback(TrainingMaps(IMAGES), model=make_net())


def test_the_other_package_of_lightning(tmp_path: Path) -> None:
    """The callback of one package works in the trainer of the other one."""
    other = pytest.importorskip("pytorch_lightning")

    class Other(other.LightningModule):  # type: ignore[misc]
        __init__, forward, training_step = Module.__init__, Module.forward, Module.training_step
        configure_optimizers = Module.configure_optimizers

    sink = Memory()
    trainer = other.Trainer(
        max_steps=2, accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[LightningCallback(TrainingMaps(IMAGES, every=2, sinks=sink, layers="net.conv2"))],
    )  # fmt: skip
    module = Other.__new__(Other)
    other.LightningModule.__init__(module)
    module.net = make_net()
    trainer.fit(module, loader(32, shuffle=True))
    assert sink.steps == [0, 2]
