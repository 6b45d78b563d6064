"""The evaluator: partial forward passes, memory layouts, dense and half-precision models, function targets, memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import seewhy
from seewhy.errors import LayerError, MethodError, UsageError
from seewhy.tensors.nested import first_tensor
from seewhy.tracing.resume import PartialForward
from seewhy.tracing.twin import make_twin
from support.networks import TINY_NETWORKS, TwiceNet, tiny_network


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


EVALUATING_METHODS = [
    "scorecam",
    "occlusion(window=0.5,stride=0.5)",
    "rise(masks=6)",
    "iscam(steps=2)",
    "sscam(samples=2)",
    "ablationcam",
]


# --- resuming at a layer ----------------------------------------------------------------------------------------------


def full_forward(net: nn.Module, layer: str, inputs: Tensor, rows: Tensor) -> Tensor:
    """Return the output of the full model with the output of a layer replaced by `rows`."""
    copy = make_twin(net)

    def put_in(module: nn.Module, args: object, output: object) -> object:
        return rows.clone() if isinstance(output, Tensor) else [rows.clone(), *output[1:]]  # type: ignore[index]

    copy.get_submodule(layer).register_forward_hook(put_in)
    with torch.no_grad():
        found = first_tensor(copy(inputs.expand(len(rows), *inputs.shape[1:])))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("source", "name", "layer"),
    [
        ("torchvision", "resnet18", "layer3"),  # functional flatten, in-place skip
        ("torchvision", "resnet18", "layer4.1.conv2"),  # in the middle of a block
        ("torchvision", "densenet121", "features.denseblock4.denselayer3.conv2"),  # concatenation
        ("torchvision", "vgg11", "features.18"),
        ("torchvision", "mobilenet_v2", "features.14"),
        ("torchvision", "shufflenet_v2_x0_5", "stage4.1.branch2.3"),  # chunk and concatenation
        ("timm", "tf_efficientnet_lite0", "blocks.5.2.conv_pw"),
        ("timm", "vit_tiny_patch16_224", "blocks.9.norm1"),
        ("timm", "swin_tiny_patch4_window7_224", "layers.2.blocks.3.norm1"),
        ("timm", "convnext_atto", "stages.3.blocks.1.conv_dw"),
    ],
)
def test_partial_forward_equals_the_full_model(source: str, name: str, layer: str) -> None:
    torch.manual_seed(0)
    net = (torchvision.models.get_model(name) if source == "torchvision" else timm.create_model(name)).eval()
    inputs = torch.randn(1, 3, 224 if "224" in name else 96, 224 if "224" in name else 96)
    tail = PartialForward(net, inputs, layer)
    rows = tail.original * torch.rand(3, *[1] * (tail.original.dim() - 1))
    with torch.inference_mode():
        found = first_tensor(tail(rows))
    expected = full_forward(net, layer, inputs, rows)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", TINY_NETWORKS)
def test_partial_forward_of_in_place_networks(kind: type[nn.Module]) -> None:
    net, inputs = tiny_network(kind, dtype=torch.float64)
    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and name != "twice":
            tail = PartialForward(net, inputs[:1], name)
            rows = tail.original * torch.rand(4, *[1] * (tail.original.dim() - 1), dtype=torch.float64)
            expected = full_forward(net, name, inputs[:1], rows)
            torch.testing.assert_close(first_tensor(tail(rows)), expected, rtol=1e-10, atol=1e-12)


def test_partial_forward_skips_earlier_layers() -> None:
    net = torchvision.models.resnet18(num_classes=5).eval()
    seen: list[tuple[str, int]] = []
    for name in ("conv1", "layer2", "layer3", "layer4"):
        hook = lambda module, args, output, name=name: seen.append((name, len(output)))  # noqa: E731
        net.get_submodule(name).register_forward_hook(hook)
    seewhy.explain(net, torch.randn(1, 3, 64, 64), methods="ablationcam", layers="layer3")
    many = {name for name, rows in seen if rows > 2}
    assert many == {"layer4"}


class Random(nn.Module):
    """A model with random output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        return self.head(x) + torch.rand(1) * 10


def test_nondeterministic_model_raises() -> None:
    with pytest.raises(LayerError, match="the model does not reproduce its output"):
        PartialForward(Random(), torch.rand(1, 3, 8, 8), "conv")
    with pytest.raises(
        MethodError, match="layer 'conv': resumed after this layer, the model does not reproduce its output"
    ):
        seewhy.explain(Random(), torch.rand(1, 3, 8, 8), methods="ablationcam", layers="conv")


class Asserting(nn.Module):
    """A model that asserts equal shapes, so that batch sizes 1 and N cannot be mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.first(x)
        y = self.second(x)
        assert x.shape == y.shape, "shapes differ"
        return {"loss": torch.zeros(()), "logits": self.head((x + y).relu().mean((2, 3)))}


def test_shape_checking_model_runs_with_repeated_tensors() -> None:
    net = Asserting().eval()
    assert PartialForward(net, torch.rand(1, 3, 8, 8), "second").repeats_outputs
    e = seewhy.explain(net, torch.rand(2, 3, 8, 8), methods="ablationcam", layers="second", targets=0)
    assert e.map().shape == (2, 8, 8)


# --- layouts, types, outputs ------------------------------------------------------------------------------------------


class Viewing(nn.Module):
    """A model that flattens with `view`, which requires one memory layout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5)
        self.head = nn.Linear(6 * 8 * 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x)).view(-1, 6 * 8 * 8))  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", EVALUATING_METHODS)
def test_networks_that_flatten_by_view(method: str) -> None:
    e = seewhy.explain(Viewing().eval(), torch.rand(2, 3, 12, 12), methods=method, layers="conv", targets=1)
    assert bool(e.map().isfinite().all()) and float(e.map().abs().max()) > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=5).eval()
    inputs = torch.randn(1, 3, 64, 64)
    full = seewhy.explain(net, inputs, methods=["cam", "ablationcam", "fullgrad"], layers="layer4", targets=1)
    half = seewhy.explain(
        net.to(dtype),
        inputs.to(dtype),
        methods=["cam", "ablationcam", "fullgrad", "reciprocam"],
        layers="layer4",
        targets=1,
    )
    assert all(maps.dtype == torch.float32 for maps in half.maps.values())
    cosine = torch.nn.functional.cosine_similarity(
        full.map(method="cam").flatten(), half.map(method="cam").flatten(), dim=0
    )
    assert float(cosine) > 0.99


def test_target_functions_with_parameters() -> None:
    """As the text encoder of CLIP: parameters outside of the model, with gradients."""
    net, inputs = tiny_network(TwiceNet)
    head = nn.Linear(5, 1)
    e = seewhy.explain(
        net, inputs, methods=["ablationcam", "reciprocam(score=logit)"], layers="last", targets=lambda o: head(o)[:, 0]
    )
    assert not any(maps.requires_grad for maps in e.maps.values())
    expected = seewhy.explain(
        net, inputs, methods="ablationcam", layers="last", targets=lambda o: o @ head.weight[0] + head.bias
    )
    torch.testing.assert_close(e.map(method="ablationcam"), expected.map(), rtol=1e-4, atol=1e-6)


def test_target_function_of_a_fixed_batch_raises() -> None:
    net, inputs = tiny_network(TwiceNet)
    rows = torch.arange(2)
    for method in ("ablationcam", "opticam(steps=2)"):
        with pytest.raises(UsageError, match="variants of an image, and must return one score per row"):
            seewhy.explain(net, inputs, methods=method, layers="last", targets=lambda o: o[rows, rows])
    with pytest.raises(UsageError, match="one score per row"):
        seewhy.explain(net, inputs, methods="occlusion", targets=lambda o: o[:1, 0].expand(2))
    with pytest.raises(MethodError, match="needs a class as its target"):
        seewhy.explain(net, inputs, methods="rise(masks=4)", targets=lambda o: o[:, 0])


def test_equal_target_names_get_numbers() -> None:
    net, inputs = tiny_network(TwiceNet, dtype=torch.float64)
    e = seewhy.explain(net, inputs, layers="last", targets=[lambda o: o[:, 1], lambda o: o[:, 2], 3, 3])
    assert e.targets == ("lambda", "lambda#2", "3")
    for key, index in (("lambda", 1), ("lambda#2", 2)):
        torch.testing.assert_close(e.map(target=key), seewhy.explain(net, inputs, layers="last", targets=index).map())
    several = [seewhy.ClassScore(torch.tensor(classes)) for classes in ([0, 1], [1, 2])]
    assert seewhy.explain(net, inputs, layers="last", targets=several).targets == ("classes", "classes#2")


def test_inputs_from_inference_mode() -> None:
    net, _ = tiny_network(TwiceNet)
    with torch.inference_mode():
        inputs = torch.randn(1, 3, 10, 10)
        e = seewhy.explain(net, inputs, methods=["opticam(steps=2)", "smooth(samples=2)", "scorecam"], layers="last")
    assert len(e.methods) == 3


# --- unsupported models and inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pvt_v2_b0", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("method", ["attentionrollout", "vitreciprocam"])
def test_pooled_and_windowed_attention_raises(name: str, method: str) -> None:
    net = timm.create_model(name, num_classes=3).eval()
    with pytest.raises(MethodError, match="Use gradcam"):
        seewhy.explain(net, torch.randn(1, 3, 224, 224), methods=method, targets=0)


def test_out_of_memory_is_not_reported_as_input_size() -> None:
    class Hungry(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] > 8:
                raise torch.OutOfMemoryError("no memory is left")
            return self.conv(x).mean((2, 3))

    with pytest.raises(torch.OutOfMemoryError, match="memory ran out on cpu for inputs of shape"):
        seewhy.explain(Hungry(), torch.rand(1, 3, 8, 8), methods="augmented(sizes=(1.5,))", layers="conv", targets=0)


def test_guided_backpropagation_needs_relu_only() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(MethodError, match="defined for ReLU networks, but this model has silu"):
        seewhy.explain(net, torch.rand(1, 3, 8, 8), methods="guidedgradcam", layers="2", targets=0)


def test_nan_pixel_is_flagged() -> None:
    net, inputs = tiny_network(TwiceNet)
    inputs[0, 0, 0, 0] = torch.nan
    e = seewhy.explain(net, inputs, methods=["eigencam", "eigengradcam", "gradcam"], layers="last", targets=0)
    for method in e.methods:
        assert e[0].flags(method=method) == ["non_finite"] or "non_finite" in e[0].flags(method=method)
        assert "non_finite" not in e[1].flags(method=method)


def test_constant_image_has_no_noise() -> None:
    net, inputs = tiny_network(TwiceNet)
    e = seewhy.explain(
        net, inputs * 0, methods=["sscam(samples=2)", "integrated(sscam(samples=1),steps=2)"], layers="last"
    )
    assert all(bool(maps.isfinite().all()) for maps in e.maps.values())


def test_seed_applies_to_methods_without_one() -> None:
    net, inputs = tiny_network(TwiceNet)
    one, other = (seewhy.explain(net, inputs, methods="randomcam", layers="last", seed=seed) for seed in (0, 7))
    assert other.methods == ("randomcam(seed=7)",)
    assert not torch.equal(one.map(), other.map())
    kept = seewhy.explain(
        net, inputs, methods=["randomcam(seed=3)", "smooth(randomcam)", "gradcam"], layers="last", seed=7
    )
    assert kept.methods == ("randomcam(seed=3)", "smooth(randomcam(seed=7),seed=7)", "gradcam")


def test_unknown_layer_raises_without_layer_methods() -> None:
    net, inputs = tiny_network(TwiceNet)
    with pytest.raises(UsageError, match="no layer 'lsat'"):
        seewhy.explain(net, inputs, methods="rise(masks=4)", layers="lsat")
