"""The private names of PyTorch in `tracing/torch_private.py` still exist and behave as seewhy needs.

Checked on PyTorch 2.14.1. If a test here fails after an upgrade, PyTorch has changed the name that its message gives: adapt
`torch_private.py`, then add the version to `CHECKED_ON`.
"""

from __future__ import annotations

import ast
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from seewhy.tracing import torch_private
from seewhy.tracing.function_modes import CaptureAttention
from support.paths import ROOT

CHECKED_ON = ("2.14.1",)
VERSION = f"PyTorch {torch.__version__} (checked on {', '.join(CHECKED_ON)})"
SOURCE = ROOT / "src" / "seewhy"

CLASSES: list[tuple[str, tuple[type[nn.Module], ...], tuple[type[nn.Module], ...]]] = [
    (
        "CONVOLUTION",
        (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.LazyConv2d),
        (nn.Linear, nn.Unfold),
    ),
    ("MAX_POOLING", (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), (nn.AdaptiveMaxPool2d, nn.AvgPool2d)),
    ("AVERAGE_POOLING", (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), (nn.AdaptiveAvgPool2d, nn.MaxPool2d)),
    (
        "ADAPTIVE_POOLING",
        (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
        (nn.AvgPool2d, nn.MaxPool2d),
    ),
    (
        "BATCH_NORM",
        (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
        (nn.InstanceNorm2d, nn.GroupNorm),
    ),
    ("INSTANCE_NORM", (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), (nn.BatchNorm2d, nn.LayerNorm)),
    ("NORM_WITH_STATISTICS", (nn.BatchNorm2d, nn.InstanceNorm2d), (nn.LayerNorm, nn.GroupNorm)),
]


@pytest.mark.parametrize(("name", "members", "others"), CLASSES, ids=[name for name, _, _ in CLASSES])
def test_base_classes_have_the_expected_subclasses(
    name: str, members: tuple[type[nn.Module], ...], others: tuple[type[nn.Module], ...]
) -> None:
    base = getattr(torch_private, name)
    for member in members:
        assert issubclass(member, base), f"{member.__name__} is no longer a subclass of {name} in {VERSION}"
    for other in others:
        assert not issubclass(other, base), f"{other.__name__} is now a subclass of {name} in {VERSION}"


@pytest.mark.parametrize(
    "module", [nn.Linear(2, 2), nn.BatchNorm2d(2), nn.Sequential(nn.ReLU()), nn.MultiheadAttention(4, 2)]
)
def test_a_module_has_exactly_the_known_private_attributes(module: nn.Module) -> None:
    """The twin fills these tables itself. A new table in PyTorch would be shared with the user's model."""
    known = {
        *torch_private.FORWARD_HOOK_TABLES,
        *torch_private.BACKWARD_HOOK_TABLES,
        *torch_private.STATE_DICT_TABLES,
        *(torch_private.PARAMETERS, torch_private.BUFFERS, torch_private.CHILDREN),
    }
    harmless = {"_is_full_backward_hook", "_qkv_same_embed_dim"}  # plain values, which a twin may share
    private = {name for name in vars(module) if name.startswith("_")}
    assert known <= private, f"nn.Module lacks {known - private} in {VERSION}"
    assert private <= known | harmless, (
        f"nn.Module has the unknown attributes {private - known - harmless} in {VERSION}"
    )


def test_hook_tables_hold_the_registered_hooks() -> None:
    module = nn.ReLU()
    assert not torch_private.has_hooks(module)
    for register in (module.register_forward_hook, module.register_forward_pre_hook):
        handle = register(lambda *_: None)
        assert torch_private.has_hooks(module), f"{VERSION} stores the hooks of {register.__name__} in another table"
        handle.remove()
        assert not torch_private.has_hooks(module)
    module.register_full_backward_hook(lambda *_: None)
    assert torch_private.has_hooks(module), f"{VERSION} stores backward hooks in another table"
    for name in (*torch_private.FORWARD_HOOK_TABLES, *torch_private.BACKWARD_HOOK_TABLES):
        assert type(vars(module)[name]) is OrderedDict, f"{name} is another type in {VERSION}"


def test_the_child_table_keeps_duplicates_and_none() -> None:
    module, shared = nn.Module(), nn.ReLU()
    module.one, module.two = shared, shared
    module.register_module("three", None)
    assert torch_private.child_table(module) == {"one": shared, "two": shared, "three": None}


def test_only_the_module_itself_counts_for_own_parameters() -> None:
    assert torch_private.has_own_parameters(nn.Linear(2, 2))
    assert not torch_private.has_own_parameters(nn.Sequential(nn.Linear(2, 2)))
    assert not torch_private.has_own_parameters(nn.BatchNorm2d(2, affine=False))


def test_a_compiled_module_wraps_its_original() -> None:
    module = nn.Linear(2, 2)
    compiled = torch.compile(module, backend="eager")
    assert torch_private.compiled_original(compiled) is module, f"torch.compile has another child name in {VERSION}"
    assert torch_private.compiled_original(module) is None


def test_a_call_wrapper_replaces_hooks_and_forward() -> None:
    module, x = nn.ReLU(), torch.tensor([-1.0, 2.0])
    hook_calls: list[int] = []
    module.register_forward_hook(lambda *_: hook_calls.append(1))
    torch_private.set_call_wrapper(module, lambda *args: "wrapped")
    assert module(x) == "wrapped" and not hook_calls, f"nn.Module.__call__ ignores the wrapper in {VERSION}"
    assert torch_private.call_module(module, (x,), {}).tolist() == [0.0, 2.0] and hook_calls == [1]
    torch_private.set_call_wrapper(module, None)
    assert module(x).tolist() == [0.0, 2.0]


def test_module_compile_uses_the_call_wrapper() -> None:
    """The twin clears this attribute, so that a module compiled in place runs its Python forward and its hooks."""
    module = nn.ReLU()
    module.compile(backend="eager")
    assert vars(module).get(torch_private.CALL_WRAPPER) is not None, (
        f"Module.compile sets another attribute in {VERSION}"
    )


def test_without_the_fused_path_an_encoder_layer_calls_its_modules() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    assert getattr(layer, torch_private.FUSED_ACTIVATION) == 1, f"the fused path has another condition in {VERSION}"
    calls: list[str] = []
    layer.linear1.forward = lambda x: calls.append("linear1") or F.linear(x, layer.linear1.weight, layer.linear1.bias)  # type: ignore[method-assign,func-returns-value]
    with torch.no_grad():
        fused = layer(torch.ones(1, 5, 8))
        assert not calls, f"the fused path now calls the modules inside in {VERSION}"
        torch_private.disable_fused_encoder(vars(layer))
        torch.testing.assert_close(layer(torch.ones(1, 5, 8)), fused)
    assert calls == ["linear1"], f"disabling the fused path has no effect in {VERSION}"


def test_the_version_counter_counts_in_place_operations() -> None:
    tensor = torch.zeros(3)
    view, before = tensor[:2], torch_private.version_of(tensor)
    tensor.mul(2)
    assert torch_private.version_of(tensor) == before
    view.add_(1)
    assert torch_private.version_of(tensor) == before + 1, f"a write to a view is not counted in {VERSION}"
    assert torch_private.is_view(view) and not torch_private.is_view(tensor)


class SeenCalls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.disabling: list[bool] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.disabling.append(torch_private.disables_gradients(func, args))
        return func(*args, **(kwargs or {}))


def test_a_function_mode_sees_where_gradients_are_turned_off() -> None:
    with SeenCalls() as seen, torch.no_grad():
        torch.ones(1)
    assert seen.disabling == [True, False, False], f"no_grad is no longer a torch function in {VERSION}"


def test_the_attention_copy_calls_the_replacement_and_leaves_pytorch_alone() -> None:
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.rand(2, 5, 8)
    expected = attention(x, x, x, need_weights=False)[0]
    original = F.scaled_dot_product_attention
    shapes: list[tuple[int, ...]] = []

    def attend(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        shapes.append(tuple(query.shape))
        return original(query, *args, **kwargs)

    query = x.transpose(0, 1)
    output, _ = torch_private.attention_forward_with(attend)(
        query, query, query, 8, 2, attention.in_proj_weight, attention.in_proj_bias, None, None, False, 0.0,
        attention.out_proj.weight, attention.out_proj.bias, training=False, need_weights=False,
    )  # fmt: skip
    assert shapes == [(2, 2, 5, 4)], f"multi_head_attention_forward no longer calls the fused attention in {VERSION}"
    torch.testing.assert_close(output.transpose(0, 1), expected)
    assert F.scaled_dot_product_attention is original


@pytest.mark.parametrize("need_weights", [False, True])
def test_captured_attention_has_the_output_and_weights_of_pytorch(need_weights: bool) -> None:
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.rand(2, 5, 8)
    expected, expected_weights = attention(x, x, x, need_weights=True, average_attn_weights=False)
    calls: list[Tensor] = []
    with CaptureAttention(lambda call: calls.append(call.weights)):
        output, weights = attention(x, x, x, need_weights=need_weights)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(calls, [expected_weights])
    assert (weights is not None) == need_weights
    if need_weights:
        torch.testing.assert_close(weights, expected_weights.mean(1))


# Structure


class FailsInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise ValueError("backward")


class FailsInForward(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        raise ValueError("forward")


@pytest.mark.parametrize("name", [torch_private.MODULE_CALL, torch_private.BACKWARD_CALL])
def test_names_in_a_traceback(name: str) -> None:
    """An exception of a forward or backward pass is recognized by PyTorch's functions in its traceback."""
    values = torch.zeros(1, requires_grad=True)
    with pytest.raises(ValueError) as raised:
        if name == torch_private.MODULE_CALL:
            FailsInForward()(values)
        else:
            FailsInBackward.apply(values).backward()
    assert name in [entry.name for entry in raised.traceback]


def private_names() -> set[str]:
    """Return the private, not dunder, names of modules, tensors and the packages of PyTorch that seewhy imports."""
    objects = [
        torch,
        torch.Tensor,
        torch.nn,
        torch.autograd,
        nn.TransformerEncoderLayer(4, 1),
        nn.MultiheadAttention(4, 1),
    ]
    names = {name for item in objects for name in dir(item) if name.startswith("_") and not name.startswith("__")}
    return names | {torch_private.COMPILED_CHILD, torch_private.FUSED_ACTIVATION}


def own_names(tree: ast.AST) -> set[str]:
    """Return the names of the functions and classes that a file defines, and of the attributes that it sets on `self`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()) if name not in vars(nn.Module()):
                names.add(name)
    return names


def private_uses(tree: ast.AST) -> set[str]:
    """Return the private names of PyTorch that a file imports, reads as attributes, or spells out as strings."""
    private, own = private_names(), own_names(tree)
    uses: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "torch":
                names = [*module.split("."), *(alias.name for alias in node.names)]
                uses |= {name for name in names if name.startswith("_")}
            case ast.Attribute(attr=name) if name in private and name not in own:
                uses.add(name)
            case ast.Constant(value=str(name)) if name in private:
                uses.add(name)
    return uses


@pytest.mark.parametrize(
    ("code", "use"),
    [
        ("from torch.nn.modules.conv import _ConvNd", "_ConvNd"),
        ("tensor._version", "_version"),
        ("torch._C._set_grad_enabled(True)", "_C"),
        ("module._modules", "_modules"),
        ("state['_compiled_call_impl'] = None", "_compiled_call_impl"),
        ("state['activation_relu_or_gelu'] = 0", "activation_relu_or_gelu"),
        ("class A:\n    def _version(self): return self._version", ""),
        ("from torch import Tensor", ""),
    ],
)
def test_private_uses_are_detected(code: str, use: str) -> None:
    uses = private_uses(ast.parse(code))
    assert use in uses if use else not uses


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_other_file_uses_private_names_of_pytorch(path: Path) -> None:
    if path.name == "torch_private.py":
        return
    uses = private_uses(ast.parse(path.read_text("utf-8")))
    assert not uses, f"{path.name} uses {', '.join(sorted(uses))}: move that to tracing/torch_private.py"


@pytest.mark.skipif(not torch_private.can_pack_weights(), reason="this PyTorch was built without oneDNN")
def test_packed_weights_compute_the_same() -> None:
    layer = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=4)
    inputs = torch.randn(2, 8, 9, 11).contiguous(memory_format=torch.channels_last)
    settings = torch_private.ConvolutionSettings((2, 2), (1, 1), (1, 1), 4)
    with torch.no_grad():
        packed = torch_private.pack_convolution(layer.weight, settings, inputs.shape)
        output = torch_private.run_packed_convolution(inputs, packed, layer.bias, settings)
        torch.testing.assert_close(output, layer(inputs), msg=f"packed weights have another meaning in {VERSION}")
    assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch_private.can_pack_weights(), reason="this PyTorch was built without oneDNN")
@pytest.mark.parametrize("shape", [(1, 24), (5, 24), (2, 7, 24), (2, 3, 7, 24)])
def test_packed_linear_layers_compute_the_same(shape: tuple[int, ...]) -> None:
    layer, inputs = nn.Linear(24, 40), torch.randn(shape)
    with torch.no_grad():
        output = torch_private.run_packed_linear(inputs, torch_private.pack_linear(layer.weight), layer.bias)
        torch.testing.assert_close(output, layer(inputs), msg=f"packed weights have another meaning in {VERSION}")
