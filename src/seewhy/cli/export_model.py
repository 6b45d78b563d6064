"""`seewhy export-model`: write a network that returns its answer and a map. Heavy modules are imported inside."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seewhy.cli.exits import print_status
from seewhy.cli.flags import GROUPS, FlagSet, from_stdin, with_flags
from seewhy.engine.options import ModelOptions, Options, option
from seewhy.errors import UsageError

if TYPE_CHECKING:
    from seewhy.integrations.model_export.exported import ExportedModel

FORMATS = ("onnx", "pt2", "torchscript")
SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "torchscript": ".pt"}


@dataclass(frozen=True)
class ExportOptions:
    """The map to export, its layer and its classes."""

    map: str = option(
        "cam",
        "cam and reciprocam (before mean pooling and a linear head), hirescam, or gradcam.",
        choices=("cam", "hirescam", "gradcam", "reciprocam"),
    )
    layer: str | None = option(None, "Layer of the map, from seewhy layers. Default: the suggested layer.", short="-l")
    targets: tuple[str, ...] | None = option(
        None,
        "topK, all, or classes by index or name. Default: the predicted class of each image.",
        "targets",
        short="-t",
    )
    heatmap: bool = option(
        False,
        "Add an output with the positive part of each map, resized to the input and divided by its maximum.",
        "switch",
    )
    multilabel: bool = option(False, "Each class has its own probability (sigmoid), for reciprocam.", "switch")


@dataclass(frozen=True)
class ExportOutput:
    """The file that is written."""

    to: str = option("onnx", "Format of the file.", choices=FORMATS)
    out: Path | None = option(None, "File to write. Default: MODEL_MAP.onnx in this folder.", "path", short="-o")
    batch: int | None = option(None, "The only number of images that the file accepts. Default: any number.", "number")
    opset: int | None = option(None, "Version of the ONNX operators. Default: that of the exporter.", "number")
    json: bool = option(False, "Print one JSON object to stdout, and nothing else.", "switch")
    quiet: bool = option(False, "Print only errors.", "switch", short="-q")


@with_flags(
    FlagSet(ExportOptions, group=GROUPS[Options]), FlagSet(ModelOptions, skip=("model",)), FlagSet(ExportOutput)
)
def export_model(names: tuple[str, ...], options: ExportOptions, model: ModelOptions, output: ExportOutput) -> int:
    """Write a network that returns its class scores and a map, as ONNX, torch.export or TorchScript.

    The content is compared with seewhy's own maps on sample images before it is written.

    Parameters
    ----------
    names
        One model, as for --model of the main command.
    """
    import dataclasses

    from seewhy.storage import check_own
    from seewhy.storage.paths import check_folders

    if len(names) != 1:
        given = "no model" if not names else f"{len(names)} models"
        raise UsageError(f"{given}. Name one: seewhy export-model resnet18 --map cam --to onnx")
    (name,) = from_stdin(names)
    model = dataclasses.replace(model, model=name)
    out = output.out or Path(default_name(name, options.map, output.to))
    check_own(out)
    check_folders([out.parent])
    from seewhy.cli.layer_hints import runnable_hints
    from seewhy.integrations.model_export.exporter import export_model as export
    from seewhy.integrations.model_export.file_formats import check_format
    from seewhy.models.loading import load_model

    check_format(output.to)
    loaded = load_model(
        model.uri, labels=model.labels, device=model.device, log=print_status, allow_code=model.allow_code
    )
    if not output.quiet and not output.json:
        for note in loaded.notes:
            print_status(note)
    with runnable_hints(model):
        result = export(
            loaded, out, map=options.map, to=output.to, layer=options.layer,  # type: ignore[arg-type]
            targets=options.targets or "top1", heatmap=options.heatmap, batch=output.batch, opset=output.opset,
            multilabel=options.multilabel,
        )  # fmt: skip
    print_result(result, output)
    return 0


def default_name(model: str, map: str, format: str) -> str:
    """Return a file name without characters that have a meaning in paths.

    >>> default_name("timm/resnet18.a1_in1k?pretrained=false", "cam", "onnx")
    'resnet18.a1_in1k_cam.onnx'
    """
    stem = model.partition("?")[0].rstrip("/").rpartition("/")[2].replace(":", "_") or "model"
    return f"{stem}_{map}{SUFFIXES[format]}"


def print_result(result: ExportedModel, output: ExportOutput) -> None:
    from seewhy.terminal import FAINT, encode_json, make_console, plain

    if output.json:
        print(encode_json(result.to_dict()))
        return
    if output.quiet:
        return
    console = make_console()
    console.print(
        f"[bold]{plain(shlex.quote(str(result.path)))}[/]  {result.size / 1e6:.1f} MB: scores and the "
        f"{plain(result.method)} map of {plain(result.layer)}",
        soft_wrap=True,
    )
    for name, shape in result.outputs.items():
        console.print(f"  {name:8} {' x '.join(map(str, shape))}", soft_wrap=True)
    console.print(
        f"Compared with seewhy on {result.images} images: maps differ by at most {result.difference:.1e} of their maximum, "
        f"scores by {result.score_difference:.1e}.",
        style=FAINT,
        soft_wrap=True,
    )
