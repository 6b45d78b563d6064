"""A twin returns what its model returns, and nothing done to the twin changes the model."""

from __future__ import annotations

import copy
import functools
import pickle
import types
import weakref
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import seewhy
from seewhy.errors import ModelError
from seewhy.tracing.twin import make_twin, named_modules
from support.layers import Transpose, is_same, small_network, snapshot_model

IMAGE = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Reused(nn.Module):
    """Modules that are also referenced from lists, dicts, tuples, partials and bound methods."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)
        self.plain = [self.one]
        self.table = {"two": (self.two, None)}
        self.call = functools.partial(self.run, scale=2.0)
        self.counter = torch.zeros(())
        self.cache: dict[str, Tensor] = {}
        self.pair = namedtuple("Pair", "module")(self.head)
        self.plain_list = self.plain  # the same list twice

    def run(self, x: Tensor, scale: float) -> Tensor:
        return self.pair.module(x.mean((2, 3)) * scale)

    def forward(self, x: Tensor) -> Tensor:
        self.counter += 1
        self.cache["last"] = x
        self.plain.append(self.two)
        return self.call(self.table["two"][0](self.plain[0](x)))


class Slotted(nn.Conv2d):
    __slots__ = ("gain",)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gain


class Adapter(nn.Module):
    """A wrapper around a frozen layer, as in LoRA."""

    def __init__(self, base: nn.Conv2d) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Conv2d(3, 1, 1, bias=False), nn.Conv2d(1, 4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class CustomNew(nn.Sequential):
    """A class whose `__new__` requires arguments."""

    def __new__(cls, *modules: nn.Module) -> CustomNew:
        assert modules
        return super().__new__(cls)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.Linear(3, 5)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x)).mean((2, 3)))


def slotted() -> nn.Module:
    model = small_network()
    model[0] = Slotted(3, 4, 3)
    model[0].gain = 1.5
    return model


def adapted() -> nn.Module:
    model = small_network()
    model[0] = Adapter(model[0])
    return model


def parametrized(register: Callable[[nn.Module], Any]) -> nn.Module:
    model = small_network()
    register(model[0])
    return model


def patched() -> nn.Module:
    """`forward` is replaced by a partial with the module as an argument, as in accelerate."""
    model = small_network()
    old = model[0].forward
    model[0].forward = functools.update_wrapper(functools.partial(lambda module, x: module._old(x) * 2, model[0]), old)
    model[0]._old = old
    return model


def bound() -> nn.Module:
    model = small_network()
    model[3].forward = types.MethodType(lambda self, x: nn.Conv2d.forward(self, x) + 1, model[3])
    return model


def hooked() -> nn.Module:
    model = small_network()
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    model[3].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return model


def compiled_inside() -> nn.Module:
    model = small_network()
    model[3] = torch.compile(model[3], backend="eager")
    return model


def compiled_in_place() -> nn.Module:
    model = small_network()
    model.compile(backend="eager")
    return model


def created_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return small_network()


CASES: dict[str, Callable[[], nn.Module]] = {
    "plain": small_network,
    "reused": Reused,
    "slots": slotted,
    "custom __new__": lambda: CustomNew(*small_network()),
    "adapter": adapted,
    "tied": Tied,
    "weight norm": lambda: parametrized(parametrizations.weight_norm),
    "spectral norm": lambda: parametrized(parametrizations.spectral_norm),
    "partial forward": patched,
    "bound forward": bound,
    "user hooks": hooked,
    "data parallel": lambda: nn.DataParallel(small_network()),
    "compiled": lambda: torch.compile(small_network(), backend="eager"),
    "compiled child": compiled_inside,
    "compiled in place": compiled_in_place,
    "graph module": lambda: torch.fx.symbolic_trace(small_network()),
    "inference mode": created_in_inference_mode,
    "deep copy": lambda: copy.deepcopy(small_network()),
    "frozen": lambda: small_network().requires_grad_(False),
}


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_explaining_gives_the_output_of_the_model_and_does_not_change_it(build: Callable[[], nn.Module]) -> None:
    model = build()
    model.eval()
    with torch.no_grad():
        expected = copy.deepcopy(model)(IMAGE) if isinstance(model, Reused) else model(IMAGE)
    model.train()
    before = snapshot_model(model)
    e = seewhy.explain(model, IMAGE, layers="every", targets=1)
    torch.testing.assert_close(e.logits, expected, rtol=1e-6, atol=1e-6)
    assert len(e.layers) >= 2
    assert all(e.map(layer=layer).abs().max() > 0 for layer in e.layers)
    assert is_same(snapshot_model(model), before)


def test_names_do_not_contain_wrappers() -> None:
    expected = [name for name, _ in small_network().named_modules() if name]
    for build in ("plain", "data parallel", "compiled", "compiled child"):
        model = CASES[build]()
        assert [name for name, _ in named_modules(model)] == expected
        assert [name for name, _ in make_twin(model).named_modules() if name] == expected


def test_containers_buffers_and_tensors_are_copies() -> None:
    model = Reused().eval()
    model.register_buffer("steps", torch.zeros(()))
    model.self_reference = [model.plain]
    model.self_reference.append(model.self_reference)  # a cycle
    twin = make_twin(model)
    twin(IMAGE)
    twin.steps += 1
    assert model.counter == 0 and not model.cache and len(model.plain) == 1 and model.steps == 0
    assert twin.plain is twin.plain_list and twin.self_reference[1] is twin.self_reference
    assert twin.plain[0] is twin.one and twin.table["two"][0] is twin.two and twin.pair.module is twin.head


def test_weights_are_shared_and_detached() -> None:
    model = Tied()
    twin = make_twin(model)
    assert twin.one.weight is twin.two.weight  # still tied
    assert twin.one.weight.data_ptr() == model.one.weight.data_ptr()
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not twin.training and model.training


def test_a_weak_reference_still_points_to_the_original() -> None:
    model = small_network()
    model.parent = weakref.ref(model)
    assert make_twin(model).parent() is model


def test_an_explained_model_can_be_copied_and_pickled() -> None:
    model = small_network()
    seewhy.explain(model, IMAGE, layers="every")
    restored = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(restored.eval()(IMAGE), model.eval()(IMAGE))


def test_backward_hooks_of_the_model_do_not_run() -> None:
    calls: list[int] = []
    model = small_network()
    model[3].register_full_backward_hook(lambda *_: calls.append(1))
    seewhy.explain(model, IMAGE, layers="every")
    assert not calls


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks_have_the_maps_of_plain_ones(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = small_network()[:5], small_network()[5:]
            self.grad_checkpointing = reentrant  # the twin turns this flag off

        def forward(self, x: Tensor) -> Tensor:
            if self.grad_checkpointing:
                return self.head(checkpoint(self.body, x, use_reentrant=True))
            return self.head(self.body(x) if reentrant else checkpoint(self.body, x, use_reentrant=False))

    model = Checkpointed().eval()
    e = seewhy.explain(model, IMAGE, layers="every", targets=1)
    model.grad_checkpointing = False
    plain = nn.Sequential(model.body, model.head)
    expected = seewhy.explain(plain, IMAGE, layers="every", targets=1)
    assert e.layers == ("body.0", "body.3")
    for layer in e.layers:
        torch.testing.assert_close(e.map(layer=layer), expected.map(layer=layer.replace("body", "0")))


def test_encoder_layers_call_their_modules() -> None:
    """The fused path of nn.TransformerEncoderLayer would call none of the modules inside."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), Transpose(), nn.TransformerEncoder(layer, 2), Mean(8, 5)
    )
    e = seewhy.explain(model.eval(), IMAGE, layers="3.layers.1.norm1", targets=1)
    assert e.map().shape == (2, 4, 4) and e.map().abs().max() > 0


class Mean(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mean(1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: torch.jit.ScriptModule(), "TorchScript"),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), "lazy"),
        (lambda: nn.Sequential(torch.ao.nn.quantized.dynamic.Linear(3, 3)), "quantized"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:Lazy modules:UserWarning", "ignore::DeprecationWarning", "ignore:.*quantized:UserWarning"
)
def test_a_model_without_hook_support_is_an_error(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make_twin(build())


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "squeezenet1_1", "swin_t", "vit_b_32"])
def test_twins_of_torchvision_families_return_the_same_output(name: str) -> None:
    model = torchvision.models.get_model(name).eval()
    with torch.no_grad():
        assert torch.equal(make_twin(model)(torch.ones(1, 3, 224, 224)), model(torch.ones(1, 3, 224, 224)))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_s32_224", "regnetx_002", "tf_efficientnet_lite0"])
def test_twins_of_timm_families_return_the_same_output(name: str) -> None:
    model = timm.create_model(name).eval()
    with torch.no_grad():
        assert torch.equal(make_twin(model)(torch.ones(1, 3, 224, 224)), model(torch.ones(1, 3, 224, 224)))
