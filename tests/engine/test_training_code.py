"""Models in training, wrapped, compiled, in other precisions: explained like the bare one, and left as they were."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import seewhy
from seewhy.errors import ModelError

METHODS = ["gradcam", "hirescam", "scorecam", "ablationcam"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.drop(self.body(self.stem(x)).mean((2, 3))))
        return found


class Checkpointed(Net):
    reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = checkpoint(self.body, x, use_reentrant=self.reentrant)
        found: Tensor = self.head(self.drop(x.mean((2, 3))))
        return found


class LoRA(nn.Module):
    """A low-rank adapter around a frozen convolution, as adapter libraries build it."""

    def __init__(self, base: nn.Conv2d, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Conv2d(base.in_channels, rank, base.kernel_size, base.stride, base.padding, bias=False)  # type: ignore[arg-type]
        self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.base(x) + self.up(self.down(x))
        return found


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    made = Net()
    made.train()
    with torch.no_grad():
        for _ in range(3):
            made(torch.rand(8, 3, 16, 16))  # statistics worth having
    return made


@pytest.fixture
def inputs() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def snapshot(model: nn.Module) -> dict[str, Any]:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    wants = {name: p.requires_grad for name, p in model.named_parameters()}
    hooks = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    return {"state": state, "grads": grads, "modes": modes, "wants": wants, "hooks": hooks}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def bare(net: Net, inputs: Tensor) -> seewhy.Explanation:
    return seewhy.explain(
        copy.deepcopy(net).eval(), inputs, methods=METHODS, layers=["stem.0", "body.0"], targets=[1, 2]
    )


def check(model: nn.Module, net: Net, inputs: Tensor, tolerance: float = 1e-4) -> seewhy.Explanation:
    """`model` gives the maps of the bare net, under the same names, and is as it was."""
    before, drawn = snapshot(model), torch.get_rng_state()
    e = seewhy.explain(model, inputs, methods=METHODS, layers=["stem.0", "body.0"], targets=[1, 2])
    assert same(snapshot(model), before)
    assert torch.equal(torch.get_rng_state(), drawn)
    expected = bare(net, inputs)
    assert e.maps.keys() == expected.maps.keys()
    for key, maps in e.maps.items():
        wanted = expected.maps[key]
        assert maps.dtype in (torch.float32, torch.float64)
        torch.testing.assert_close(
            maps.float(), wanted, rtol=0, atol=tolerance * float(wanted.abs().amax()), msg=str(key)
        )
    return e


def test_in_the_middle_of_training(net: Net, inputs: Tensor) -> None:
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(4, 3, 16, 16)).square().sum().backward()
    check(net, net, inputs)
    optimizer.step()
    check(net, net, inputs)
    with torch.no_grad():
        check(net, net, inputs)


def test_a_training_step_goes_on_as_if_nothing_had_been(net: Net, inputs: Tensor) -> None:
    other = copy.deepcopy(net)
    batch = torch.rand(4, 3, 16, 16)
    for model, explained in ((net, True), (other, False)):
        torch.manual_seed(7)
        loss = model(batch).square().sum()
        if explained:
            seewhy.explain(model, inputs, layers="every")
        loss.backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert same(snapshot(net), snapshot(other))


@pytest.mark.filterwarnings("ignore")  # torch's own, about compiling and about data parallel without a GPU
@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        lambda net: torch.compile(net, backend="eager"),
        lambda net: nn.DataParallel(torch.compile(net, backend="eager")),
        lambda net: net.to(memory_format=torch.channels_last),
        lambda net: torch.optim.swa_utils.AveragedModel(net).module,
    ],
    ids=["DataParallel", "compiled", "both", "channels_last", "averaged"],
)
def test_wrapped(wrap: Callable[[nn.Module], nn.Module], net: Net, inputs: Tensor) -> None:
    check(wrap(copy.deepcopy(net)), net, inputs)


@pytest.fixture
def group(tmp_path: Any) -> Iterator[None]:
    if not dist.is_available():  # torch can be built without it
        pytest.skip("this torch is built without torch.distributed")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(os.name == "nt", reason="the file store of torch.distributed wants another path on Windows")
def test_distributed(net: Net, inputs: Tensor, group: None) -> None:
    check(nn.parallel.DistributedDataParallel(copy.deepcopy(net)), net, inputs)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointed(reentrant: bool, net: Net, inputs: Tensor) -> None:
    model = Checkpointed()
    model.reentrant = reentrant
    model.load_state_dict(net.state_dict())
    if not reentrant:
        check(model, net, inputs)
        return
    with pytest.raises(ModelError, match="set use_reentrant=False"):
        seewhy.explain(model, inputs, layers="stem.0", targets=1)


def test_adapters(net: Net, inputs: Tensor) -> None:
    model = copy.deepcopy(net)
    model.body[0] = LoRA(model.body[0])  # type: ignore[arg-type]
    before = snapshot(model)
    e = seewhy.explain(model, inputs, methods=METHODS, layers=["body.0", "body.0.base"], targets=1)
    assert same(snapshot(model), before) and not torch.equal(
        e.map("gradcam", layer="body.0"), e.map("gradcam", layer="body.0.base")
    )
    merged = copy.deepcopy(net).eval()
    adapter = model.body[0]
    assert isinstance(adapter, LoRA)
    with torch.no_grad():
        extra = torch.einsum("or,rihw->oihw", adapter.up.weight[:, :, 0, 0], adapter.down.weight)
        merged.body[0].weight += extra
    expected = seewhy.explain(merged, inputs, methods=METHODS, layers="body.0", targets=1)
    for method in e.methods:
        wanted = expected.map(method)
        torch.testing.assert_close(
            e.map(method, layer="body.0"), wanted, rtol=0, atol=1e-4 * float(wanted.abs().amax())
        )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.15)])
def test_precisions(dtype: torch.dtype, tolerance: float, net: Net, inputs: Tensor) -> None:
    model = copy.deepcopy(net).to(dtype)
    e = seewhy.explain(
        model, inputs.to(dtype), methods=["gradcam", "hirescam"], layers=["stem.0", "body.0"], targets=[1, 2]
    )
    for key, maps in e.maps.items():
        wanted = bare(net, inputs).maps[key]
        torch.testing.assert_close(
            maps.float(), wanted, rtol=0, atol=tolerance * float(wanted.abs().amax()), msg=str(key)
        )


def test_under_autocast(net: Net, inputs: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check(net, net, inputs, tolerance=0.1)
        assert torch.is_autocast_enabled("cpu")
