"""Plain training loops with maps: the same bits as without, the right maps, and no interruption whatever fails."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.errors import ImageError, LayerError, OptionError, UnknownName, UsageError
from seewhy.integrations import TrainingMaps
from support.training_runs import Memory, bright_squares, make_net, nothing, same, state_of, train

IMAGES, TRUE = bright_squares(3, 9)


def make_maps(**options: Any) -> tuple[TrainingMaps, Memory]:
    sink = options.pop("sinks", None) or Memory()
    return TrainingMaps(options.pop("images", IMAGES), every=options.pop("every", 2), sinks=sink, **options), sink


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate": 3}, {"autocast": True}],
    ids=["plain", "accumulated", "autocast"],
)
def test_training_is_the_same_bit_for_bit(options: dict[str, Any]) -> None:
    maps, sink = make_maps(classes=TRUE, methods=["gradcam", "smooth(gradcam,samples=2)"], layers="conv2")
    logged = train(make_net(), maps.step, **options)
    expected = train(make_net(), nothing, **options)
    assert sink.steps == [2, 4, 6]
    assert same(logged, expected)
    without_dropout = make_net()
    without_dropout.drop.p = 0.0
    assert not same(train(without_dropout, nothing, **options), expected)  # the comparison notices a difference


def test_a_model_that_draws_random_numbers_in_eval_mode() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.net(x + torch.rand(1) + float(np.random.rand()))
            return scores

    maps, sink = make_maps(layers="net.conv2")
    assert same(train(Noisy(), maps.step), train(Noisy(), nothing))
    assert sink.steps == [2, 4, 6]


def test_maps_are_those_of_the_model_in_eval_mode() -> None:
    net = make_net()
    train(net, nothing)
    maps, sink = make_maps(classes=TRUE, layers="conv2", names=["a", "b", "c"], labels=["nw", "ne", "sw", "se"])
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():  # float32 all the same
        assert maps.step(4, net)
    e = seewhy.explain(
        copy.deepcopy(net).eval(),
        IMAGES,
        layers="conv2",
        targets=seewhy.ClassScore(TRUE),
        labels=["nw", "ne", "sw", "se"],
    )
    drawn = sink.logged[0][1]
    assert [item.name for item in drawn] == ["a", "b", "c"]
    for index, item in enumerate(drawn):
        overlay = e[index].overlay().resize((256, 256), Image.Resampling.NEAREST)
        left = (item.image.width - 256) // 2
        assert np.array_equal(np.asarray(item.image)[:256, left : left + 256], np.asarray(overlay))
        resized = nn.functional.interpolate(e[index].map()[None, None].relu(), size=(16, 16), mode="bilinear")
        assert f"max {float(resized.amax()):.3g} " in item.caption
        name, chance = ["nw", "ne", "sw", "se"][int(TRUE[index])], float(e.probabilities[index, TRUE[index]])
        assert item.caption.startswith("step 4   max ")
        assert f"true class: {name} ({chance:.1%})" in item.caption


def test_without_classes_the_predicted_class_is_explained() -> None:
    maps, sink = make_maps(layers="conv2")
    net = make_net()
    maps.step(0, net)
    predicted = net.eval()(IMAGES).argmax(1).tolist()
    for index, item in zip(predicted, sink.logged[0][1], strict=True):
        assert f"class: class {index} " in item.caption and "predicted: the same class" in item.caption


def test_the_layers_of_the_first_step_are_kept() -> None:
    maps, sink = make_maps(methods=["gradcam", "hirescam"], layers="every")
    net = make_net()
    train(net, maps.step, steps=4)
    names = [[item.name for item in images] for _, images in sink.logged]
    assert names[0] == names[1] and "image_1_conv1_hirescam" in names[0] and len(names[0]) == 3 * 2 * 2
    assert maps.layers == ["conv1", "conv2"]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_in_validation(mode: Any) -> None:
    maps, sink = make_maps(layers="conv2")
    net = make_net()
    with mode():
        assert maps.step(0, net)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        inference_net = make_net()  # parameters that were created in inference mode
        assert maps.step(4, inference_net)
    first, second = (images[0].image for _, images in sink.logged)
    assert np.array_equal(np.asarray(first)[:256], np.asarray(second)[:256])


def test_an_average_of_the_weights_is_explained() -> None:
    net = make_net()
    ema = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    maps, sink = make_maps(layers="conv2")
    calls = []

    def log(step: int, model: nn.Module) -> None:
        ema.update_parameters(model)

        def module() -> nn.Module:
            calls.append(step)
            return ema.module

        maps.step(step, module)

    train(net, log)
    assert calls == sink.steps == [2, 4, 6]  # the function is called only when maps are due
    other, expected = make_maps(layers="conv2")
    other.step(6, ema.module)
    assert sink.logged[-1][1][0].caption == expected.logged[0][1][0].caption
    assert np.array_equal(np.asarray(sink.logged[-1][1][0].image), np.asarray(expected.logged[0][1][0].image))


@pytest.mark.filterwarnings("ignore")  # of torch, about compilation
@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")], ids=["parallel", "compiled"]
)
def test_wrapped_models(wrap: Any) -> None:
    maps, sink = make_maps(layers="conv2")
    assert same(train(wrap(make_net()), maps.step), train(wrap(make_net()), nothing))
    assert sink.steps == [2, 4, 6] and not maps.is_disabled


def test_each_step_once_and_steps_that_are_skipped() -> None:
    maps, sink = make_maps(layers="conv2", every=4)
    net = make_net()
    for step in (0, 0, 1, 3, 5, 5, 8, 8, 15, 16):
        maps.step(step, net)
    assert sink.steps == [0, 5, 8, 15, 16]
    assert maps.step(17, net, force=True) and not maps.step(17, net, force=True)


def test_lazy_modules_are_explained_once_they_have_weights() -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    maps, sink = make_maps(layers="0", every=1)
    assert not maps.step(0, net) and not maps.is_disabled
    net(IMAGES)
    assert maps.step(1, net) and sink.steps == [1]


def test_a_state_contains_plain_values_only(tmp_path: Path) -> None:
    maps, _ = make_maps(layers=nn.Conv2d, scale="shared")
    assert maps.state_dict()["layers"] is None
    maps.step(0, make_net())
    torch.save(maps.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["layers"] == ["conv1", "conv2"] and len(state["scales"]["maps"]) == 6
    for broken in ({}, {**state, "scales": {"maps": 3}}):
        with pytest.warns(RuntimeWarning, match="the state of the training maps cannot be restored: KeyError"):
            maps.load_state_dict(broken)


def test_images_from_files(tmp_path: Path) -> None:
    path = tmp_path / "a cat.png"
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(path)
    preprocess = seewhy.Preprocess.imagenet(16)
    maps, sink = make_maps(images=[path, str(path)], preprocess=preprocess, layers="conv2")
    path.unlink()  # it was read already
    assert maps.step(0, make_net())
    assert [item.name for item in sink.logged[0][1]] == ["a_cat", "a_cat_2"]


# Failures


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"every": 0}, OptionError, "every=0: pass the number of steps between maps"),
        ({"every": 2.5}, OptionError, "every=2.5"),
        ({"side": 5}, OptionError, "side=5"),
        ({"classes": [0]}, UsageError, "one class for each of the 3 images"),
        ({"classes": 3}, UsageError, "classes=3: pass a list"),
        ({"classes": "cat"}, UsageError, "classes='cat': pass a list"),
        ({"classes": [[0], [1], [2]]}, UsageError, "classes=list: pass a list"),
        ({"preprocess": 3}, UsageError, "preprocess=3"),
        ({"grid": "abc"}, UsageError, "abc"),
        ({"classes": TRUE, "targets": 1}, UsageError, "not both"),
        ({"methods": "gradcm"}, UnknownName, "did you mean 'gradcam'"),
        ({"scale": "equal"}, UnknownName, "no scale 'equal'"),
        ({"names": ["a"]}, UsageError, "1 names for 3 images"),
        ({"images": "missing.jpg"}, UsageError, "need preprocess="),
        ({"images": "missing.jpg", "preprocess": seewhy.Preprocess.imagenet(16)}, ImageError, "missing.jpg"),
        ({"images": torch.zeros(3, dtype=torch.uint8)}, UsageError, "pass a float tensor"),
        ({"images": [torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)]}, UsageError, "different shapes"),
        ({"images": []}, UsageError, "empty"),
        ({"sinks": 3}, UsageError, "sinks=3: pass a folder"),
        ({"sinks": []}, UsageError, "the list is empty"),
        ({"style": "blend"}, UsageError, "OverlayStyle"),
    ],
)  # fmt: skip
def test_invalid_arguments_raise_at_construction(options: dict[str, Any], error: type[Exception], text: str) -> None:
    arguments = {"images": IMAGES, "sinks": Memory(), **options}
    with pytest.raises(error, match=text):
        TrainingMaps(arguments.pop("images"), **arguments)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layers": "conv3"}, "from step 2 on: no layer 'conv3' - did you mean 'conv2'"),
        ({"classes": [0, 1, 9]}, "from step 2 on: target .*9"),
        ({"images": torch.rand(2, 5, 16, 16)}, "from step 2 on: .*5"),
    ],
)
def test_what_fails_later_warns_once_and_training_continues(options: dict[str, Any], text: str) -> None:
    maps, sink = make_maps(**options)
    with pytest.warns(RuntimeWarning, match=text) as warnings:
        logged = train(make_net(), maps.step)
    assert [str(one.message).endswith("Training continues.") for one in warnings] == [True]
    assert "\n" not in str(warnings[0].message)
    assert same(logged, train(make_net(), nothing))
    assert maps.is_disabled and sink.steps == []


def test_check_raises_before_training() -> None:
    maps, sink = make_maps(layers="conv3")
    with pytest.raises(UnknownName, match="did you mean 'conv2'"):
        maps.check(make_net())
    maps, sink = make_maps(layers="drop")
    with pytest.raises(LayerError):
        maps.check(make_net())
    maps, sink = make_maps(layers="conv2")
    assert maps.check(make_net()).map().shape == (3, 4, 4) and sink.steps == []


def test_a_sink_that_fails_does_not_stop_the_others() -> None:
    bad, good = Memory(fails_at=4), Memory()
    maps = TrainingMaps(IMAGES, every=2, sinks=[bad, good], layers="conv2")
    with pytest.warns(
        RuntimeWarning, match=r"Memory is disabled from step 4 on: .*No space left on device.*the other sinks"
    ):
        logged = train(make_net(), maps.step)
    assert (bad.steps, good.steps) == ([2], [2, 4, 6])
    assert same(logged, train(make_net(), nothing))


def test_the_only_sink_fails() -> None:
    maps, sink = make_maps(layers="conv2", sinks=Memory(fails_at=4))
    with pytest.warns(RuntimeWarning, match="training maps are disabled from step 4 on: .*No space left"):
        train(make_net(), maps.step)
    assert sink.steps == [2] and maps.is_disabled


def test_warnings_that_are_errors_do_not_end_training(capsys: pytest.CaptureFixture[str]) -> None:
    maps, _ = make_maps(layers="conv3")
    train(make_net(), maps.step, steps=4)  # pytest turns warnings into errors
    assert "no layer 'conv3'" in capsys.readouterr().err and maps.is_disabled


def test_a_wrong_model_or_step() -> None:
    for arguments, text in (
        ((0, "net"), "model= 'net'"),
        ((0, lambda: None), "the function .* None"),
        (("x", make_net()), "str"),
        ((-1, make_net()), "step=-1"),
    ):
        maps, _ = make_maps()
        with pytest.warns(RuntimeWarning, match=text):
            assert not maps.step(*arguments)  # type: ignore[arg-type]


def test_weights_that_are_split_over_processes() -> None:
    class FSDPModule:
        pass

    class Split(FSDPModule, type(make_net())):  # type: ignore[misc]
        pass

    maps, sink = make_maps()
    with pytest.warns(RuntimeWarning, match=r"split over several processes \(FSDP\)"):
        maps.step(0, Split())
    assert sink.steps == []


def test_an_interruption_is_not_caught() -> None:
    class Interrupted(Memory):
        def log(self, images: Any, step: int) -> None:
            raise KeyboardInterrupt

    maps, _ = make_maps(sinks=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        maps.step(0, make_net())


# Scale, resuming, processes


def test_a_shared_scale_redraws_earlier_steps(tmp_path: Path) -> None:
    maps = TrainingMaps(
        IMAGES[:1], every=1, sinks=tmp_path, layers="conv2", classes=TRUE[:1], scale="shared", methods="hirescam"
    )
    net = make_net()
    maps.step(0, net)
    before = (tmp_path / "image_1" / "step_00000000.png").read_bytes()
    with torch.no_grad():
        net.head.weight *= 10
    maps.step(1, net)
    after = (tmp_path / "image_1" / "step_00000000.png").read_bytes()
    assert before != after
    state = maps.state_dict()
    with torch.no_grad():
        net.head.weight *= 1.1  # within the headroom: drawn again at the end only
    maps.step(2, net)
    assert (tmp_path / "image_1" / "step_00000000.png").read_bytes() == after
    maps.close()
    assert (tmp_path / "image_1" / "step_00000000.png").read_bytes() != after
    resumed = TrainingMaps(IMAGES[:1], every=1, sinks=tmp_path, classes=TRUE[:1], scale="shared", methods="hirescam")
    resumed.load_state_dict(state)
    assert resumed.layers == ["conv2"]
    resumed.step(2, net)
    resumed.close()
    with Image.open(tmp_path / "image_1.png") as animation:
        assert animation.n_frames == 3  # type: ignore[attr-defined]
    maxima = list(resumed.scales.maxima.values())  # type: ignore[union-attr]
    assert maxima == list(maps.scales.maxima.values())  # type: ignore[union-attr]


def train_in_process(rank: int, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    try:
        states, sink = [], Memory()
        for every in (2, 100):
            net = nn.parallel.DistributedDataParallel(make_net())
            maps = TrainingMaps(IMAGES, every=every, sinks=sink, layers="conv2")
            optimizer = torch.optim.SGD(net.parameters(), 0.1)
            for step in range(1, 5):
                optimizer.zero_grad()
                x, y = bright_squares(4, 10 * step + rank)
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
                maps.step(step, net)
            states.append(state_of(net.module)["weights"])
        torch.save({"steps": sink.steps, "states": states}, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.full  # starts two processes
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(os.name == "nt", reason="the file store of torch.distributed needs another path format on Windows")
def test_only_rank_0_logs(tmp_path: Path) -> None:
    if not torch.distributed.is_available():
        pytest.skip("this torch is built without torch.distributed")
    torch.multiprocessing.spawn(train_in_process, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert (first["steps"], second["steps"]) == ([2, 4], [])  # a collective of rank 0 only would never end
    for with_maps, without in (first["states"], second["states"]):
        assert same(with_maps, without)
