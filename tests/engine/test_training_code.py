"""Models in training, wrapped, compiled or in other precisions have the maps of the plain model, and do not change."""

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
from support.layers import is_same, snapshot_model

METHODS = ["gradcam", "hirescam", "scorecam", "ablationcam"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, stride=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.drop(self.body(self.stem(x)).mean((2, 3))))
        return scores


class Checkpointed(Net):
    reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = checkpoint(self.body, x, use_reentrant=self.reentrant)
        scores: Tensor = self.head(self.drop(x.mean((2, 3))))
        return scores


class LoRA(nn.Module):
    """A low-rank adapter around a frozen convolution, as adapter libraries build it."""

    def __init__(self, base: nn.Conv2d, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Conv2d(base.in_channels, rank, base.kernel_size, base.stride, base.padding, bias=False)  # type: ignore[arg-type]
        self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.base(x) + self.up(self.down(x))
        return outputs


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    network = Net()
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(8, 3, 16, 16))  # updates the running statistics
    return network


@pytest.fixture
def inputs() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def explain_plain(net: Net, inputs: Tensor) -> seewhy.Explanation:
    return seewhy.explain(
        copy.deepcopy(net).eval(), inputs, methods=METHODS, layers=["stem.0", "body.0"], targets=[1, 2]
    )


def check_same_maps(model: nn.Module, net: Net, inputs: Tensor, tolerance: float = 1e-4) -> None:
    """Check that `model` has the maps of `net` under the same names, and that the call changes no state."""
    before, random_state = snapshot_model(model), torch.get_rng_state()
    e = seewhy.explain(model, inputs, methods=METHODS, layers=["stem.0", "body.0"], targets=[1, 2])
    assert is_same(snapshot_model(model), before)
    assert torch.equal(torch.get_rng_state(), random_state)
    expected = explain_plain(net, inputs)
    assert e.maps.keys() == expected.maps.keys()
    for key, maps in e.maps.items():
        assert maps.dtype in (torch.float32, torch.float64)
        assert_close_to_peak(maps, expected.maps[key], tolerance, str(key))


def assert_close_to_peak(maps: Tensor, expected: Tensor, tolerance: float, message: str = "") -> None:
    """Compare with a tolerance relative to the largest absolute value."""
    atol = tolerance * float(expected.abs().amax())
    torch.testing.assert_close(maps.float(), expected, rtol=0, atol=atol, msg=message or None)


def test_between_backward_and_optimizer_step(net: Net, inputs: Tensor) -> None:
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.rand(4, 3, 16, 16)).square().sum().backward()
    check_same_maps(net, net, inputs)
    optimizer.step()
    check_same_maps(net, net, inputs)
    with torch.no_grad():
        check_same_maps(net, net, inputs)


def test_explaining_within_a_training_step_does_not_change_it(net: Net, inputs: Tensor) -> None:
    other = copy.deepcopy(net)
    batch = torch.rand(4, 3, 16, 16)
    for model, explained in ((net, True), (other, False)):
        torch.manual_seed(7)
        loss = model(batch).square().sum()
        if explained:
            seewhy.explain(model, inputs, layers="every")
        loss.backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    states = [{name: value for name, value in snapshot_model(model).items() if name != "ids"} for model in (net, other)]
    assert is_same(*states)


@pytest.mark.filterwarnings("ignore")  # warnings of torch about compilation, and about DataParallel without a GPU
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
def test_wrapped_models(wrap: Callable[[nn.Module], nn.Module], net: Net, inputs: Tensor) -> None:
    check_same_maps(wrap(copy.deepcopy(net)), net, inputs)


@pytest.fixture
def group(tmp_path: Any) -> Iterator[None]:
    if not dist.is_available():
        pytest.skip("this torch is built without torch.distributed")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(os.name == "nt", reason="the file store of torch.distributed needs another path format on Windows")
def test_distributed_data_parallel(net: Net, inputs: Tensor, group: None) -> None:
    check_same_maps(nn.parallel.DistributedDataParallel(copy.deepcopy(net)), net, inputs)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_gradient_checkpointing(reentrant: bool, net: Net, inputs: Tensor) -> None:
    model = Checkpointed()
    model.reentrant = reentrant
    model.load_state_dict(net.state_dict())
    if not reentrant:
        check_same_maps(model, net, inputs)
        return
    with pytest.raises(ModelError, match="set use_reentrant=False"):
        seewhy.explain(model, inputs, layers="stem.0", targets=1)


def test_lora_adapters(net: Net, inputs: Tensor) -> None:
    model = copy.deepcopy(net)
    model.body[0] = LoRA(model.body[0])  # type: ignore[arg-type]
    before = snapshot_model(model)
    e = seewhy.explain(model, inputs, methods=METHODS, layers=["body.0", "body.0.base"], targets=1)
    assert is_same(snapshot_model(model), before)
    assert not torch.equal(e.map("gradcam", layer="body.0"), e.map("gradcam", layer="body.0.base"))
    merged = copy.deepcopy(net).eval()
    adapter = model.body[0]
    assert isinstance(adapter, LoRA)
    with torch.no_grad():
        extra = torch.einsum("or,rihw->oihw", adapter.up.weight[:, :, 0, 0], adapter.down.weight)
        merged.body[0].weight += extra
    expected = seewhy.explain(merged, inputs, methods=METHODS, layers="body.0", targets=1)
    for method in e.methods:
        assert_close_to_peak(e.map(method, layer="body.0"), expected.map(method), 1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.15)])
def test_precisions(dtype: torch.dtype, tolerance: float, net: Net, inputs: Tensor) -> None:
    model = copy.deepcopy(net).to(dtype)
    e = seewhy.explain(
        model, inputs.to(dtype), methods=["gradcam", "hirescam"], layers=["stem.0", "body.0"], targets=[1, 2]
    )
    expected = explain_plain(net, inputs)
    for key, maps in e.maps.items():
        assert_close_to_peak(maps, expected.maps[key], tolerance, str(key))


def test_inside_autocast(net: Net, inputs: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check_same_maps(net, net, inputs, tolerance=0.1)
        assert torch.is_autocast_enabled("cpu")
