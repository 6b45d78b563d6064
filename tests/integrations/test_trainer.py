"""Real runs of the `Trainer` of transformers with the callback: the same bits as without, steps, checkpoints, failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from seewhy.errors import UsageError
from seewhy.integrations import TrainerCallback, TrainingMaps
from support.training_runs import Memory, bright_squares, same, state_of

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
IMAGES, TRUE = bright_squares(2, 9)
OPTIONS: dict[str, Any] = {"layers": "resnet.encoder.stages.1"}


def make_model() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        layer_type="basic",
        num_labels=4,
        downsample_in_first_stage=False,
    )
    model: nn.Module = transformers.ResNetForImageClassification(config)
    model.classifier.append(nn.Dropout(0.2))  # type: ignore[union-attr, operator]
    return model


class Squares(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self) -> None:
        self.images, self.classes = bright_squares(32, 5)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self.images[index], "labels": self.classes[index]}


def fit(folder: Path, *callbacks: Any, resume: str | None = None, **options: Any) -> tuple[Any, dict[str, Any]]:
    settings: dict[str, Any] = {
        "max_steps": 6, "per_device_train_batch_size": 8, "use_cpu": True, "report_to": "none", "disable_tqdm": True,
        "save_strategy": "no", "logging_steps": 2, "learning_rate": 3e-3, "seed": 1,
    }  # fmt: skip
    arguments = transformers.TrainingArguments(output_dir=str(folder), **{**settings, **options})
    trainer = transformers.Trainer(make_model(), arguments, train_dataset=Squares(), callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=resume)
    return trainer, state_of(trainer.model, trainer.optimizer)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [0, 2, 4, 6]),
        ({"gradient_accumulation_steps": 2, "max_steps": 3}, [0, 2, 3]),
        ({"bf16": True}, [0, 2, 4, 6]),
    ],
    ids=["plain", "accumulated", "bf16"],
)
def test_training_is_the_same_bit_for_bit(tmp_path: Path, options: dict[str, Any], steps: list[int]) -> None:
    sink = Memory()
    callback = TrainerCallback(TrainingMaps(IMAGES, classes=TRUE, every=2, sinks=sink, **OPTIONS))
    _, logged = fit(tmp_path, callback, **options)
    _, expected = fit(tmp_path, **options)
    assert sink.steps == steps and sink.closed == 1
    assert same(logged, expected)


def test_the_maps_are_those_of_the_trained_model(tmp_path: Path) -> None:
    sink, other = Memory(), Memory()
    trainer, _ = fit(tmp_path, TrainerCallback(TrainingMaps(IMAGES, every=6, sinks=sink, **OPTIONS)))
    TrainingMaps(IMAGES, every=1, sinks=other, **OPTIONS).step(6, trainer.model)
    assert [item.caption for item in sink.logged[-1][1]] == [item.caption for item in other.logged[0][1]]


def test_trackers_and_a_resumed_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    maps = TrainingMaps(IMAGES, every=2, **OPTIONS)
    fit(tmp_path, TrainerCallback(maps), report_to="tensorboard", max_steps=4, save_strategy="steps", save_steps=2)
    events = EventAccumulator(str(tmp_path / "runs" / "seewhy_maps")).Reload()
    assert [event.step for event in events.Images("seewhy/image_1")] == [0, 2, 4]
    resumed = TrainingMaps(IMAGES, every=2, **OPTIONS)
    fit(tmp_path, TrainerCallback(resumed), resume=str(tmp_path / "checkpoint-2"))
    names = sorted(path.name for path in (tmp_path / "seewhy_maps" / "image_1").iterdir())
    assert names == [f"step_{step:08d}.png" for step in (0, 2, 4, 6)]
    with Image.open(tmp_path / "seewhy_maps" / "image_1.png") as animation:
        assert animation.n_frames == 4  # type: ignore[attr-defined]


def test_what_fails_warns_once_and_training_continues(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    callback = TrainerCallback(TrainingMaps(IMAGES, every=2, sinks=Memory(fails_at=2), **OPTIONS))
    _, logged = fit(tmp_path, callback)
    shown = [str(one.message) for one in recwarn if "seewhy" in str(one.message)]
    assert len(shown) == 1 and "disabled from step 2 on" in shown[0]
    assert same(logged, fit(tmp_path)[1])


def test_invalid_arguments() -> None:
    with pytest.raises(UsageError, match=r"maps=None: pass a seewhy\.integrations\.TrainingMaps"):
        TrainerCallback(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="model=3: pass a function of the trained model"):
        TrainerCallback(TrainingMaps(IMAGES), model=3)  # type: ignore[arg-type]
