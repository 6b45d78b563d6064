"""The image files of one explanation: which overlays and sheets are drawn, and under which names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePath

from PIL import Image

from seewhy import storage
from seewhy.cli.run_options import FEATURES_SHEET, DrawingOptions
from seewhy.explanation.components import NETWORK
from seewhy.explanation.result import Explanation
from seewhy.explanation.selection import available_layer
from seewhy.rendering.text import NO_FONT
from seewhy.storage.paths import number_duplicates, safe_name

THREADS = 2  # JPEG encoding releases the interpreter lock; coloring does not

Draw = Callable[[], Image.Image]


def draw_all(e: Explanation, drawing: DrawingOptions, *, draw_features: bool) -> dict[str, storage.Content]:
    """Return all overlays and sheets of one image as JPEG, by file name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", NO_FONT)  # the command prints it as a note
        return draw_files(e, drawing, draw_features)


def draw_files(e: Explanation, drawing: DrawingOptions, draw_features: bool) -> dict[str, storage.Content]:
    if draw_features:
        sheet = e.features_sheet(e.methods[0], e.targets[0], style=drawing.overlay_style)
        return {FEATURES_SHEET: storage.encode_jpeg(sheet)}
    jobs = plan(e, drawing)
    overlay = jobs["overlay.jpg"]()  # scales the photo once, before the threads need it
    jobs["overlay.jpg"] = lambda: overlay
    by_time = sorted(jobs, key=lambda name: name.startswith("overlays/"))  # a sheet takes as long as ten overlays
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        files = {name: pool.submit(lambda draw: storage.encode_jpeg(draw()), jobs[name]) for name in by_time}
        return {name: files[name].result() for name in jobs}


def plan(e: Explanation, drawing: DrawingOptions) -> dict[str, Draw]:
    """Return what to draw under which name: `overlays/NN_layer.jpg`, with a folder per method and target if several."""
    style = drawing.overlay_style
    layers = [name for name in e.layers if e.layer_info[name].requested]
    main = e.suggested or next((layer for layer in reversed(layers) if layer != NETWORK), layers[-1])
    combinations = [(method, target) for method in e.methods for target in e.targets]
    is_comparison = len(combinations) > 1
    places = number_duplicates(
        [PurePath(safe_name(method), target_folder(e, target)) for method, target in combinations]
    )
    jobs: dict[str, Draw] = {}
    for (method, target), place in zip(combinations, places, strict=True):
        folder = f"overlays/{place.as_posix()}/" if is_comparison else "overlays/"
        own = [layer for layer in e.layers_of(method) if layer in layers]
        for number, layer in enumerate(own, 1):
            name = folder + overlay_name(method, number, layer, len(own), drawing)
            jobs[name] = partial(draw_overlay, e, method, target, layer, drawing)
        sheet = f"sheets/{'_'.join(place.parts)}.jpg" if is_comparison else "sheet.jpg"
        jobs[sheet] = partial(e.contact_sheet, method, target, layers=own, style=style, classic=drawing.is_classic)
    if is_comparison:
        jobs["sheet.jpg"] = partial(e.comparison, main, style=style, classic=drawing.is_classic)
    method, target = combinations[0]
    jobs["overlay.jpg"] = partial(draw_overlay, e, method, target, available_layer(e, method, main), drawing)
    return jobs


def draw_overlay(e: Explanation, method: str, target: str, layer: str, drawing: DrawingOptions) -> Image.Image:
    if drawing.is_classic:
        return e.classic_overlay(method, target, layer)
    return e.overlay(method, target, layer, style=drawing.overlay_style, longest=drawing.longest)


def overlay_name(method: str, number: int, layer: str, count: int, drawing: DrawingOptions) -> str:
    if drawing.is_classic:  # file names as in many tutorials
        return f"{'grad_cam' if method == 'gradcam' else safe_name(method)}_conv{number}.jpg"
    return f"{number:0{max(2, len(str(count)))}}_{safe_name(layer)}.jpg"


def target_folder(e: Explanation, target: str) -> str:
    name = e.target_results[e.targets.index(target)].name
    return safe_name(target if name == target else f"{target}_{name}")
