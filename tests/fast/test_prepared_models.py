"""What happens around the maps of a prepared model: changed weights, threads, other paths, refusals."""

from __future__ import annotations

import copy
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.fast import layer_forward
from seewhy.fast.folding import MAX_LOSS, FoldedWeights, fold_weights
from seewhy.fast.model_state import ModelState
from support.small_architectures import small_architecture


def inputs_for(batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def maps_of(model: Any, inputs: Tensor, **options: Any) -> Tensor:
    return seewhy.explain(model, inputs, **{"layers": "features.3", "targets": 1, **options}).map()


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-8, atol=1e-12)


def test_the_model_is_not_modified() -> None:
    net = small_architecture("VGG").train()
    before, structure = copy.deepcopy(net.state_dict()), [dict(module.__dict__) for module in net.modules()]
    prepared = seewhy.prepare(net)
    maps_of(prepared, inputs_for())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for module, attributes in zip(net.modules(), structure, strict=True):
        assert module.__dict__.keys() == attributes.keys()
        assert all(module.__dict__[name] is value for name, value in attributes.items())
    assert all(not module._forward_hooks and module.training for module in net.modules())


def test_weights_that_change_between_calls_give_new_maps() -> None:
    net, inputs = small_architecture("VGG"), inputs_for()
    prepared = seewhy.prepare(net)
    first = maps_of(prepared, inputs)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    net.train()
    net(inputs_for(4, seed=1)).square().sum().backward()
    optimizer.step()
    second = maps_of(prepared, inputs)
    assert not close(first, second)
    assert close(second, maps_of(copy.deepcopy(net), inputs))


@pytest.mark.parametrize(
    "change",
    [
        lambda net: nn.init.constant_(net.features[1].running_mean, 0.7),
        lambda net: net.load_state_dict({k: v + 0.1 for k, v in net.state_dict().items()}, assign=True),
        lambda net: net.features.__setitem__(4, nn.Identity()),
        lambda net: setattr(net.features[3], "stride", (2, 2)),
        lambda net: net.features[4].register_forward_hook(lambda module, args, output: output * 2),
        lambda net: setattr(net.features[4], "eps", 0.5),
    ],
    ids=["statistics", "loaded weights", "replaced module", "setting", "hook", "epsilon"],
)
def test_changes_of_the_model_are_noticed(change: Any) -> None:
    net, inputs = small_architecture("VGG"), inputs_for()
    prepared = seewhy.prepare(net)
    before = maps_of(prepared, inputs)
    change(net)
    after = maps_of(prepared, inputs)
    assert not close(before, after) if before.shape == after.shape else True
    assert close(after, maps_of(copy.deepcopy(net), inputs))


def test_state_is_current_until_something_changes() -> None:
    net = small_architecture("DenseNet")
    state = ModelState(net)
    assert state.is_current()
    seewhy.explain(net, inputs_for())
    assert state.is_current()
    net.features.conv0.weight.data = net.features.conv0.weight.data.clone()
    assert not state.is_current()


def test_eight_threads_use_one_prepared_model() -> None:
    net = small_architecture("ShuffleNet")
    prepared, plain = seewhy.prepare(net), small_architecture("ShuffleNet")
    images = [inputs_for(seed=seed) for seed in range(8)]
    options = {"layers": "every", "methods": "hirescam"}
    expected = [seewhy.explain(plain, image, **options).maps for image in images]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(3):
            maps = seewhy.explain(prepared, images[index], **options).maps
            if not all(close(maps[key], value) for key, value in expected[index].items()):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=[index]) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_twins_are_used_again_and_hold_no_hooks() -> None:
    prepared = seewhy.prepare(small_architecture("VGG"))
    for _ in range(3):
        maps_of(prepared, inputs_for())
    module = prepared.fast._module
    assert module is not None
    (idle,) = module.__dict__["_idle_twins"].twins
    assert not any(isinstance(hook, type(lambda: 0)) for table in idle.hooks for hook in table.values())


class Counting(nn.Module):
    """A model that writes to itself while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))
        self.history: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(float(self.calls))
        return self.norm(self.conv(x)).mean((2, 3)) * self.calls


def test_a_twin_that_a_call_has_changed_is_not_used_again() -> None:
    net = Counting().double().eval()
    prepared = seewhy.prepare(net)
    first, second = (maps_of(prepared, inputs_for(), layers="conv") for _ in range(2))
    assert torch.equal(first, second)
    assert net.history == [] and float(net.calls) == 0


class Switching(nn.Module):
    """A model that calls its norm for bright inputs only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_mean.fill_(0.5)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x)
        features = self.norm(features) if x.mean() > 0 else features
        return features.relu().mean((2, 3))


def test_a_model_that_takes_another_path_runs_unprepared() -> None:
    torch.manual_seed(0)
    net = Switching().double().eval()
    prepared, bright = seewhy.prepare(net), inputs_for().abs()
    assert close(maps_of(prepared, bright, layers="conv"), maps_of(net, bright, layers="conv"))
    e = seewhy.explain(prepared, -bright, layers="conv", targets=1)
    assert close(e.map(), maps_of(net, -bright, layers="conv"))
    assert any("unprepared" in note for note in e.notes)
    assert "prepared" not in e.provenance


class Reusing(nn.Module):
    """A norm after a convolution that cannot be folded, for different reasons."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason, self.conv, self.norm = reason, nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x)
        normalized = self.norm(features)
        if self.reason == "skip":
            normalized = normalized + features
        if self.reason == "twice":
            normalized = self.norm(self.conv(normalized))
        if self.reason == "decision" and features.max() > 0:
            normalized = normalized * 2
        return normalized.mean((2, 3))


@pytest.mark.parametrize("reason", ["skip", "twice", "decision"])
def test_other_uses_of_the_output_prevent_folding(reason: str) -> None:
    torch.manual_seed(0)
    net, inputs = Reusing(reason).double().eval(), inputs_for()
    prepared = seewhy.prepare(net)
    layers = "conv#1" if reason == "twice" else "conv"
    assert close(maps_of(prepared, inputs, layers=layers), maps_of(net, inputs, layers=layers))
    assert prepared.fast.recipe is not None
    assert prepared.fast.recipe.pairs == () and dict(prepared.fast.recipe.refused)["conv"]


def test_hooks_of_the_user_see_the_values_of_the_model() -> None:
    net, inputs, seen = small_architecture("VGG"), inputs_for(), list[Tensor]()
    net.features[0].register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    maps_of(seewhy.prepare(net), inputs)
    assert all(close(one, seen[0]) for one in seen if one.shape == seen[0].shape)


def test_a_channel_without_scale_is_not_folded() -> None:
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    assert isinstance(fold_weights(conv, norm), FoldedWeights)
    nn.init.zeros_(norm.weight[:1])
    assert "scale" in str(fold_weights(conv, norm))
    nn.init.constant_(norm.weight[:1], 1e-6)
    nn.init.constant_(norm.bias, 1e-6 * 3 * MAX_LOSS)
    assert "scale" in str(fold_weights(conv, norm))


def test_half_precision_models_are_not_folded() -> None:
    net, inputs = small_architecture("VGG").to(torch.bfloat16), inputs_for().to(torch.bfloat16)
    prepared = seewhy.prepare(net)
    assert torch.allclose(maps_of(prepared, inputs), maps_of(net, inputs), rtol=0.1, atol=1e-2)
    assert prepared.fast.recipe is None or not prepared.fast.recipe.pairs


def test_bfloat16_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_forward, "MIN_CHANNELS", 3)
    monkeypatch.setattr("seewhy.fast.prepared.has_bfloat16", lambda device: True)
    net, inputs = small_architecture("VGG").float(), inputs_for(2).float()
    plain = seewhy.explain(net, inputs, layers="every", methods=["gradcam", "hirescam", "shapleycam"])
    fast = seewhy.explain(
        seewhy.prepare(net, precision="bf16"), inputs, layers="every", methods=["gradcam", "hirescam", "shapleycam"]
    )
    assert fast.provenance["prepared"] == "bf16"
    assert torch.allclose(plain.logits, fast.logits, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
    is_rounded = False
    for key, maps in plain.maps.items():
        for own, other in zip(maps, fast.maps[key], strict=True):
            assert torch.corrcoef(torch.stack([own.flatten(), other.flatten()]))[0, 1] > 0.999, key
            is_rounded |= not torch.allclose(own, other, rtol=1e-5, atol=1e-6 * float(own.abs().max()))
    assert is_rounded


def test_without_bfloat16_hardware_maps_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.fast.prepared.has_bfloat16", lambda device: False)
    prepared = seewhy.prepare(small_architecture("VGG"), precision="bf16")
    maps_of(prepared, inputs_for())
    assert prepared.fast.recipe is not None and not prepared.fast.recipe.has_half_gradients


def test_one_argument_switches_preparation_on_and_off() -> None:
    net, inputs = small_architecture("VGG"), inputs_for()
    on = seewhy.explain(net, inputs, fast="exact")
    off = seewhy.explain(seewhy.prepare(net), inputs, fast="off")
    assert on.provenance["prepared"] == "exact" and "prepared" not in off.provenance
    assert close(on.map(), off.map())
    with pytest.raises(seewhy.UsageError, match="no fast 'exakt' - did you mean 'exact'"):
        seewhy.explain(net, inputs, fast="exakt")  # type: ignore[arg-type]


def test_unknown_precision() -> None:
    with pytest.raises(seewhy.UsageError, match="no precision 'bf61' - did you mean 'bf16'"):
        seewhy.prepare(nn.Conv2d(3, 3, 3), precision="bf61")  # type: ignore[arg-type]


def test_prepared_models_are_freed() -> None:
    net = small_architecture("VGG")
    reference, prepared = weakref.ref(net), seewhy.prepare(net)
    maps_of(prepared, inputs_for())
    del net, prepared
    import gc

    gc.collect()
    assert reference() is None


def test_a_model_with_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_architecture("VGG")

        def forward(self, image: Tensor, scale: Tensor) -> Tensor:
            return self.net(image) * scale[:, None]

    net, inputs = Two().eval(), (inputs_for(2), torch.tensor([1.0, 2.0], dtype=torch.float64))
    prepared = seewhy.prepare(net)
    fast = seewhy.explain(prepared, inputs, layers="net.features.3", targets=1)
    assert fast.provenance["prepared"] == "exact"
    assert close(fast.map(), seewhy.explain(net, inputs, layers="net.features.3", targets=1).map())
