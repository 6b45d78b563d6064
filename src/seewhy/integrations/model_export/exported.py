"""`ExportedModel`: what was exported, and how closely the file reproduces seewhy's maps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seewhy.images.preprocess import Preprocess

Format = Literal["onnx", "pt2", "torchscript"]
PREFIX = "seewhy."  # of the keys in the metadata of a file


@dataclass(frozen=True)
class ExportedModel:
    """A network that was exported together with its map, as `export_model` returns it.

    Attributes:
        path: The file.
        format: "onnx", "pt2" or "torchscript".
        model: URI of the model.
        method: Name of the map.
        layer: The layer whose map it is.
        outputs: Names and shapes of the outputs; the first axis counts images.
        size: Bytes of the file.
        difference: Largest difference between a map of the file and that of `seewhy.explain`, divided by its maximum.
        score_difference: The same for the class scores.
        images: Number of images that were compared.

    Example:
        >>> from pathlib import Path
        >>> outputs = {"scores": ("batch", 7)}
        >>> ExportedModel(Path("net.onnx"), "onnx", "resnet18", "cam", "layer4", outputs, 10, 1e-7, 1e-7, 4).to_dict()["path"]
        'net.onnx'
    """

    path: Path
    format: Format
    model: str
    method: str
    layer: str
    outputs: dict[str, tuple[int | str, ...]]
    size: int
    difference: float
    score_difference: float
    images: int

    def to_dict(self) -> dict[str, object]:
        """Return all fields as plain values.

        Returns:
            A dictionary that can be encoded as JSON.

        Example:
            >>> from pathlib import Path
            >>> one = ExportedModel(Path("net.pt2"), "pt2", "resnet18", "cam", "layer4", {}, 10, 0.0, 0.0, 4)
            >>> one.to_dict()["format"]
            'pt2'
        """
        return {
            "path": str(self.path), "format": self.format, "model": self.model, "method": self.method, "layer": self.layer,
            "outputs": {name: list(shape) for name, shape in self.outputs.items()}, "size": self.size,
            "difference": self.difference, "score_difference": self.score_difference, "images": self.images,
        }  # fmt: skip


def describe_preprocess(preprocess: object) -> str:
    """Return a preprocessing as JSON for the metadata of a file; "" if it is a function or unknown."""
    if not isinstance(preprocess, Preprocess):
        return ""
    resize = preprocess.resize if isinstance(preprocess.resize, int) else list(preprocess.resize)
    return json.dumps(
        {
            "size": list(preprocess.size), "mean": list(preprocess.mean), "std": list(preprocess.std),
            "interpolation": preprocess.interpolation, "resize": resize, "rule": preprocess.rule, "fit": preprocess.fit,
            "channels": preprocess.channels,
        }
    )  # fmt: skip


def make_metadata(
    version: str,
    model: str,
    method: str,
    layer: str,
    targets: Sequence[str],
    labels: Sequence[str] | None,
    preprocess: object,
) -> dict[str, str]:
    """Return the metadata of a file: what an app needs to prepare images and to name classes."""
    values = {
        "version": version, "model": model, "method": method, "layer": layer, "targets": json.dumps(list(targets)),
        "labels": "" if labels is None else json.dumps(list(labels), ensure_ascii=False),
        "preprocess": describe_preprocess(preprocess),
    }  # fmt: skip
    return {f"{PREFIX}{key}": value for key, value in values.items() if value}
