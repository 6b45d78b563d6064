"""Which maps a figure shows: images, targets, methods and layers, and how they are arranged in rows and columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from seewhy.errors import UnknownName, UsageError, describe_argument
from seewhy.explanation.data import ExplanationData, MapKey
from seewhy.explanation.selection import (
    LayerChoice,
    MethodChoice,
    TargetChoice,
    fields_for_image,
    find_layer,
    find_method_name,
    find_target_key,
    layers_of,
    match_layers,
)

DIMENSIONS = ("images", "targets", "methods", "layers")
Dimensions = str | Sequence[str] | None
MAX_PANELS = 200


@dataclass(frozen=True, eq=False)
class SelectedMap:
    """One place of a figure: the explanation of one image, the key of a map in it (None: it has no such map), and names."""

    e: ExplanationData
    key: MapKey | None
    names: dict[str, str]  # dimension -> text of a header


@dataclass(frozen=True, eq=False)
class Selection:
    """The selected maps by index along DIMENSIONS, and the number of entries of each dimension."""

    maps: dict[tuple[int, ...], SelectedMap]
    sizes: dict[str, int]

    @property
    def varies_by_image(self) -> bool:
        """True if a target has another name in another image."""
        names: dict[int, set[str]] = {}
        for (_, target, _, _), one in self.maps.items():
            names.setdefault(target, set()).add(one.names["targets"])
        return any(len(texts) > 1 for texts in names.values())

    def at(self, indices: dict[str, int]) -> SelectedMap:
        """Return the map at an index of each dimension; 0 for those that are not named."""
        return self.maps[tuple(indices.get(name, 0) for name in DIMENSIONS)]


def select_maps(
    explanations: Sequence[ExplanationData],
    methods: MethodChoice | Sequence[MethodChoice],
    targets: TargetChoice | Sequence[TargetChoice],
    layers: LayerChoice | Sequence[LayerChoice],
    images: int | Sequence[int] | None,
) -> Selection:
    """Return the maps of a figure. Targets and layers of several explanations correspond by their position."""
    rows = [(e, index) for e in explanations for index in selected_images(e, images)]
    method_names = select_methods(explanations, methods)
    target_keys = [select_targets(e, targets) for e in explanations]
    layer_names = [select_layers(e, method_names, layers) for e in explanations]
    for kind, entries in (("targets", target_keys), ("layers", layer_names)):
        if len(counts := {len(one) for one in entries}) > 1:
            numbers = " and ".join(map(str, sorted(counts)))
            raise UsageError(
                f"the explanations have {numbers} {kind}: select as many of each with {kind}=, such as {kind}={hint(kind)}."
            )
    by_explanation = {id(e): number for number, e in enumerate(explanations)}
    sizes = dict(zip(DIMENSIONS, (len(rows), len(target_keys[0]), len(method_names), len(layer_names[0])), strict=True))
    if empty := [name for name, count in sizes.items() if not count]:
        raise UsageError(f"{empty[0]}=[]: a figure needs at least one.")
    names = image_names(rows)
    maps: dict[tuple[int, ...], SelectedMap] = {}
    for image, (e, index) in enumerate(rows):
        number = by_explanation[id(e)]
        single = e if len(e) == 1 else dataclasses.replace(e, **fields_for_image(e, index))
        for target, method, layer in product(*(range(sizes[name]) for name in DIMENSIONS[1:])):
            result = e.target_results[e.targets.index(target_keys[number][target])]
            result = result if len(e) == 1 else result.for_image(index, e.labels)
            name = layer_names[number][layer]
            key = find_map(single, method_names[method], result.key, name)
            texts = (names[image], result.name, method_names[method], name)
            maps[image, target, method, layer] = SelectedMap(single, key, dict(zip(DIMENSIONS, texts, strict=True)))
    if not any(one.key for one in maps.values()):
        raise UsageError("the selected methods have no map at the selected layers: see e.layers_of(method).")
    if len(maps) > MAX_PANELS:
        counts_text = ", ".join(f"{count} {name}" for name, count in sizes.items() if count > 1)
        raise UsageError(f"a figure of {len(maps)} panels ({counts_text}): select at most {MAX_PANELS}.")
    return Selection(maps, sizes)


def hint(kind: str) -> str:
    return '["top1"]' if kind == "targets" else '["suggested"]'


def selected_images(e: ExplanationData, images: int | Sequence[int] | None) -> list[int]:
    """Return indices of images of one explanation."""
    chosen = list(range(len(e))) if images is None else as_list(images)
    for index in chosen:
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or not -len(e) <= index < len(e):
            raise UsageError(f"images: there is no image {index!r}; the explanation has {len(e)}, 0 to {len(e) - 1}.")
    return [int(index) % len(e) for index in chosen]


def as_list(value: Any) -> list[Any]:
    """Return the entries of a list, tuple or array, or a list of the value."""
    return list(value) if isinstance(value, (list, tuple, range, np.ndarray)) else [value]


def select_methods(explanations: Sequence[ExplanationData], methods: object) -> list[str]:
    first = explanations[0]
    names = list(first.methods) if methods is None else [find_method_name(first, one) for one in as_list(methods)]
    for e in explanations[1:]:
        for name in names:
            if name not in e.methods:
                raise UnknownName("method", name, e.methods, hint=f"Another explanation has {', '.join(e.methods)}.")
    return list(dict.fromkeys(names))


def select_targets(e: ExplanationData, targets: object) -> list[str]:
    if targets is None:
        return list(e.main_targets)
    return list(dict.fromkeys(find_target_key(e, one) for one in as_list(targets)))


def select_layers(e: ExplanationData, methods: Sequence[str], layers: object) -> list[str]:
    """Return layer names. Default: all at which the methods have maps, without those of methods with a single map."""
    if layers is None:
        by_method = [layers_of(e, name) for name in methods]
        several = {name for names in by_method if len(names) > 1 for name in names}
        chosen = several or {names[0] for names in by_method[:1]}
        return [name for name in e.layers if name in chosen]
    names: dict[str, None] = {}
    for entry in as_list(layers):
        matches = match_layers(e.layers, entry, e.selected_layers) if entry is not None else []
        names.update(dict.fromkeys(matches or [find_layer(e.layers, e, entry)]))
    return list(names)


def find_map(e: ExplanationData, method: str, target: str, layer: str) -> MapKey | None:
    """Return the key of a map at a layer; that of a method's only map, such as one of the entire model, at any layer."""
    only = layers_of(e, method)
    key = (method, target, only[0] if len(only) == 1 else layer)
    return key if key in e.maps else None


def image_names(rows: Sequence[tuple[ExplanationData, int]]) -> list[str]:
    """Return a name of each image: of its file, or of the model if several models explain the same file."""
    files = [Path(e.images[index].source).stem if e.images else f"image {index}" for e, index in rows]
    if len(set(files)) == len(files):
        return files
    models = [str(e.provenance.get("model", "")) for e, _ in rows]
    if len(set(models)) == len(models):
        return models
    pairs = [f"{file}\n{model}" for file, model in zip(files, models, strict=True)]
    return pairs if len(set(pairs)) == len(pairs) else [f"{file} ({number})" for number, file in enumerate(files, 1)]


def arrange(sizes: dict[str, int], rows: Dimensions, columns: Dimensions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the dimensions on rows and columns, outermost first. Each dimension with several entries needs a place.

    >>> arrange({"images": 2, "targets": 2, "methods": 3, "layers": 1}, None, None)
    (('images',), ('targets', 'methods'))
    """
    placed = [as_dimensions("rows", rows), as_dimensions("columns", columns)]
    if twice := [name for name in placed[0] if name in placed[1]]:
        raise UsageError(f"{twice[0]!r} is on rows and on columns: pass it to one of them.")
    several = [name for name in DIMENSIONS if sizes[name] > 1 and name not in (*placed[0], *placed[1])]
    if several and rows is not None and columns is not None:
        name = several[0]
        raise UsageError(
            f"there are {sizes[name]} {name}: add {name!r} to rows= or columns=, or select one with {name}=."
        )
    if rows is None and columns is None:
        return (tuple(several[:1]), tuple(several[1:])) if len(several) > 1 else ((), tuple(several))
    return (placed[0] or tuple(several), placed[1]) if rows is None else (placed[0], placed[1] or tuple(several))


def as_dimensions(argument: str, value: Dimensions) -> tuple[str, ...]:
    """Return the names of dimensions in an argument. Raises UnknownName."""
    names = () if value is None else tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for name in names:
        if name not in DIMENSIONS:
            shown = name if isinstance(name, str) else describe_argument(name)
            raise UnknownName(argument, shown, DIMENSIONS, hint=f"Choose from {', '.join(DIMENSIONS)}.")
    return tuple(dict.fromkeys(names))
