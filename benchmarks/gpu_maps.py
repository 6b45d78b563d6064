"""Maps on a GPU: compared with those of the CPU for every method, and in other formats, precisions and wrappers."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import seewhy
from nets import NETS, calibrated, images
from results import Table
from seewhy.errors import UsageError
from seewhy.methods.catalog import METHODS
from seewhy.methods.parsing import as_methods

Key = tuple[str, str, str]  # method, target, layer
Explain = Callable[[], seewhy.Explanation]
TARGET = 3
FLOAT64_LIMIT = 1e-6  # of the map's maximum
FLOAT32_LIMIT = 1e-3  # or ten times the float32 error of the CPU, for methods that amplify rounding
COMPARISON_SECONDS = 220  # no further method is started after that
# Fewer samples than by default: a difference between devices does not depend on their number.
FEW = {
    "sscam": "sscam(samples=1)",
    "iscam": "iscam(steps=2)",
    "opticam": "opticam(steps=3)",
    "occlusion": "occlusion(stride=0.15)",
    "rise": "rise(masks=100)",
    "sess": "sess(scales=3)",
}


@dataclass(frozen=True)
class Network:
    """A network, its input size, and layers to explain. The last layer is used alone where a method does not fit the others."""

    build: Callable[[int], nn.Module]
    size: int
    layers: list[str]


def resnet18(size: int) -> nn.Module:
    return calibrated(NETS["ResNet-18"](), size)


def timm_vit(size: int) -> nn.Module:
    import timm

    return seeded(timm.create_model("vit_tiny_patch16_224", img_size=size, embed_dim=96, depth=4, num_classes=10))


def torchvision_vit(size: int) -> nn.Module:
    from torchvision.models import VisionTransformer

    return seeded(VisionTransformer(size, 16, num_layers=4, num_heads=3, hidden_dim=96, mlp_dim=192, num_classes=10))


def seeded(net: nn.Module) -> nn.Module:
    """Draw all weights of `net`. The initial weights of some heads are zero."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5, generator=generator)
    return net.eval()


def networks(quick: bool) -> dict[str, Network]:
    # Two blocks before the last: closer to the head, HiRes-CAM is zero apart from rounding, because of the LayerNorm.
    chosen = {
        "in-place": Network(lambda _: NETS["tiny"](), 32, ["0", "2", "3"]),
        "ViT (timm)": Network(timm_vit, 48 if quick else 64, ["blocks.0", "blocks.1"]),
        "ViT (torchvision)": Network(
            torchvision_vit, 64, [f"encoder.layers.encoder_layer_{block}" for block in (0, 1)]
        ),
        "ResNet-18": Network(resnet18, 32 if quick else 96, ["layer1"] if quick else ["layer3", "layer4"]),
    }
    if quick:
        del chosen["ViT (torchvision)"]
    return chosen


def first_line(error: BaseException) -> str:
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {text[:160]}".replace("|", "/")


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = allowed
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def maps_of(net: nn.Module, inputs: Tensor, method: str, layers: list[str]) -> dict[Key, Tensor] | Exception:
    """Return the maps in float64 on the CPU, or the error. UsageError: the method does not fit the network."""
    for selected in (layers, layers[-1:]):
        try:
            maps = seewhy.explain(net, inputs, methods=method, layers=selected, targets=TARGET).maps
            return {key: value.double().cpu() for key, value in maps.items()}
        except Exception as caught:
            error = caught
            if not isinstance(caught, UsageError):
                break
    return error


def difference(maps: Mapping[Key, Tensor], reference: Mapping[Key, Tensor]) -> tuple[float, str]:
    """Return the largest difference in any image, as a fraction of the maximum of its reference, and its layer."""
    worst, layer = -1.0, ""
    for key, expected in reference.items():
        if maps.keys() != reference.keys() or maps[key].shape != expected.shape:
            return float("inf"), "other maps or shapes"
        errors, largest = (maps[key] - expected).flatten(1).abs().amax(1), expected.flatten(1).abs().amax(1)
        relative = torch.where(errors == 0, 0.0, errors / largest).nan_to_num(nan=float("inf")).max().item()
        if relative > worst:
            worst, layer = relative, key[2]
    return worst, layer


def compare(method: str, layers: list[str], settings: dict[str, tuple[nn.Module, Tensor, bool]]) -> list[str] | str:
    """Return the cells of a row, or the reason why the method does not fit. The first setting is the reference."""
    results: dict[str, dict[Key, Tensor] | Exception] = {}
    for name, (net, inputs, allow_tf32) in settings.items():
        with tf32(allow_tf32):
            results[name] = maps_of(net, inputs, method, layers)
    reference, *others = results.values()
    if all(isinstance(result, UsageError) for result in results.values()):
        return str(getattr(reference, "reason", reference))
    failures = [f"{name}: {first_line(result)}" for name, result in results.items() if isinstance(result, Exception)]
    nothing = float("nan"), "-"
    errors = [
        nothing if isinstance(other, Exception) or isinstance(reference, Exception) else difference(other, reference)
        for other in others
    ]
    cpu32, device64, device32 = (error for error, _ in errors[:3])
    if failures:
        verdict = f"**failed** ({'; '.join(failures)})"
    elif not (device64 <= FLOAT64_LIMIT and device32 <= max(FLOAT32_LIMIT, 10 * cpu32)):
        verdict = "**differs**"
    else:
        verdict = "equal" if device32 <= FLOAT32_LIMIT else "as float32 on the CPU"
    cells = [f"{error:.0e}" for error, _ in errors] + ["-"] * (4 - len(errors))
    return [*cells, errors[2][1], verdict]


def comparison(device: torch.device, quick: bool) -> list[Table]:
    rows, skipped, start = [], [], time.perf_counter()
    unfit: dict[tuple[str, str], list[str]] = {}
    for title, network in networks(quick).items():
        try:
            net = network.build(network.size)
        except Exception as error:  # an optional package is missing
            skipped.append(f"{title} ({first_line(error)})")
            continue
        inputs, double = images(2, network.size), copy.deepcopy(net).double()
        single = copy.deepcopy(net).to(device), inputs.to(device)
        settings = {
            "CPU float64": (double, inputs.double(), False),
            "CPU float32": (net, inputs, False),
            "device float64": (copy.deepcopy(double).to(device), inputs.double().to(device), False),
            "device float32": (*single, False),
        }
        if device.type == "cuda":
            settings["device TF32"] = (*single, True)
        for entry in METHODS:
            method = FEW.get(entry.name, entry.name)
            if time.perf_counter() - start > COMPARISON_SECONDS:
                skipped.append(f"{method} on {title} (out of time)")
                continue
            cells = compare(method, network.layers, settings)
            if isinstance(cells, str):
                unfit.setdefault((title, cells.replace("|", "/")), []).append(entry.name)
                continue
            fields = [field.name for built in as_methods(method).values() for field in dataclasses.fields(built)]
            rows.append([title, method + " (seeded)" * ("seed" in fields), *cells])
    bad = sum("**" in row[-1] for row in rows)
    note = (
        f"**{len(rows)} comparisons, {bad} differ or failed.** Largest difference from the map on the CPU in float64, as a "
        "fraction of its maximum; one target, two images; columns 4 to 6 on the device. Limits: "
        f"{FLOAT64_LIMIT:.0e} in float64; {FLOAT32_LIMIT:.0e} in float32, or ten times the difference of float32 on the CPU. "
        "TF32 (CUDA only) has no limit. Seeded methods draw on the CPU in float64, so the draws are the same. "
        f"Not compared: {'; '.join(skipped) or 'none'}."
    )
    header = ["network", "method", "CPU float32", "float64", "float32", "TF32", "layer (float32)", "result"]
    reasons = [[title, reason, ", ".join(methods)] for (title, reason), methods in unfit.items()]
    return [
        Table(f"1. CPU = {device}", header, rows, note),
        Table("Methods that do not fit", ["network", "reason", "methods"], reasons),
    ]


def variants(device: torch.device, quick: bool, net: nn.Module, inputs: Tensor) -> dict[str, Explain]:
    """Return functions that explain `net`, or a copy of it, in other formats."""
    backend = "eager" if quick else "inductor"

    def explain(model: nn.Module, tensor: Tensor = inputs) -> seewhy.Explanation:
        return seewhy.explain(
            model, tensor, methods=["gradcam", "layercam", "eigencam"], layers="every", targets=TARGET
        )

    def within(context: AbstractContextManager[object]) -> seewhy.Explanation:
        with context:
            return explain(net)

    def cast(dtype: torch.dtype) -> seewhy.Explanation:
        return explain(copy.deepcopy(net).to(dtype), inputs.to(dtype))

    def channels_last(model: nn.Module) -> seewhy.Explanation:
        return explain(model, inputs.contiguous(memory_format=torch.channels_last))

    def compiled(in_place: bool = False, **settings: str) -> seewhy.Explanation:
        model = copy.deepcopy(net)
        if in_place:
            model.compile(**settings)
        else:
            model = torch.compile(model, **settings)
        with torch.no_grad():
            model(inputs)  # compiles
        return explain(model)

    def other_stream() -> seewhy.Explanation:
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            result = explain(net)
        torch.cuda.current_stream(device).wait_stream(stream)
        return result

    functions: dict[str, Explain] = {
        "the same again": partial(explain, net),
        "channels-last input": partial(channels_last, net),
        "channels-last model and input": lambda: channels_last(
            copy.deepcopy(net).to(memory_format=torch.channels_last)
        ),
        "autocast, bfloat16": lambda: within(torch.autocast(device.type, torch.bfloat16)),
        "model in bfloat16": partial(cast, torch.bfloat16),
        "under inference_mode": lambda: within(torch.inference_mode()),
        f"torch.compile ({backend})": partial(compiled, backend=backend),
        f"Module.compile ({backend})": partial(compiled, in_place=True, backend=backend),
    }
    if device.type == "cuda":
        functions["autocast, float16"] = lambda: within(torch.autocast(device.type, torch.float16))
        functions["model in float16"] = partial(cast, torch.float16)
        functions["another CUDA stream"] = other_stream
        functions["DataParallel"] = lambda: explain(nn.DataParallel(net))
        if not quick:
            functions["torch.compile (CUDA graphs)"] = partial(compiled, mode="reduce-overhead")
    return functions


def describe(result: seewhy.Explanation, reference: seewhy.Explanation) -> list[str]:
    """Return the number of maps, the median and lowest correlation, and the result of a variant."""
    shapes, expected = ({key: maps.shape for key, maps in one.maps.items()} for one in (result, reference))
    if shapes != expected:
        return [str(len(shapes)), "-", "-", "**other maps or shapes**"]
    values = []  # of each image; maps without variation have no correlation
    for key, maps in result.maps.items():
        for pair in zip(maps.flatten(1).double(), reference.maps[key].flatten(1).double(), strict=True):
            value = torch.corrcoef(torch.stack(pair))[0, 1].item()
            values += [(value, f"{key[0]}, {key[2]}")] if value == value else []
    finite = all(bool(maps.isfinite().all()) for maps in result.maps.values())
    lowest, median = min(values), sorted(values)[len(values) // 2]
    where = f"{lowest[0]:.4f}" + (f" ({lowest[1]})" if lowest[0] < 0.99 else "")
    return [str(len(shapes)), f"{median[0]:.4f}", where, "works" if finite else "**not finite**"]


def formats(device: torch.device, quick: bool) -> list[Table]:
    rows = []
    for title in ("ResNet-18", "ViT (timm)"):
        size = 64 if quick else 128
        try:
            net, inputs = networks(quick)[title].build(size).to(device), images(2, size).to(device)
            reference = variants(device, quick, net, inputs)["the same again"]()
        except Exception as error:
            rows.append([title, "float32", "-", "-", "-", f"**failed** ({first_line(error)})", "-"])
            continue
        for name, function in variants(device, quick, net, inputs).items():
            start = time.perf_counter()
            try:
                cells = describe(function(), reference)
            except Exception as error:
                cells = ["-", "-", "-", f"**failed** ({first_line(error)})"]
            rows.append([title, name, *cells, f"{time.perf_counter() - start:.1f}"])
    note = (
        "Grad-CAM, LayerCAM and Eigen-CAM at `every` layer, two images; correlation of each map with that in float32. The sign "
        "of Eigen-CAM is that of the sum of the channels, so rounding can turn it where they are unrelated."
    )
    header = ["network", "variant", "maps", "median correlation", "lowest", "result", "s"]
    return [Table("4. Formats, precisions and wrappers", header, rows, note), outputs(device)]


def outputs(device: torch.device) -> Table:
    """Use maps on the device for everything that an Explanation offers."""
    rows, net, inputs = [], NETS["tiny"]().to(device), images(1, 32)
    explain = partial(seewhy.explain, net, methods="gradcam", targets=TARGET)
    one = explain(inputs.to(device), layers="2", channels=4)[0]
    every = explain(inputs.to(device), layers="every")[0]

    def mixed_devices() -> None:
        try:
            explain(inputs, layers="2")
        except UsageError as error:
            print(f"Input on the CPU, model on {device}: {first_line(error)}\n")

    with tempfile.TemporaryDirectory() as folder:
        uses: dict[str, Callable[[], object]] = {
            "overlay": one.overlay,
            "features_sheet": one.features_sheet,
            "contact_sheet": every.contact_sheet,
            "report": every.report,
            "to_dict": every.to_dict,
            "save and load": lambda: [every.save(folder), seewhy.Explanation.load(folder)],
            "suggest": lambda: seewhy.suggest(net, inputs.to(device)),
            "input on the CPU: maps, or a UsageError": mixed_devices,
        }
        for name, use in uses.items():
            try:
                use()
                rows.append([name, "works"])
            except Exception as error:
                rows.append([name, f"**failed** ({first_line(error)})"])
    return Table(f"Results from maps on {device}", ["use", "result"], rows)
