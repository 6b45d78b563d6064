"""The terminal output for one image: predictions, layers, notes and the location of the files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from rich.console import Console

from seewhy import storage, terminal
from seewhy.cli.measurement_table import print_measurements
from seewhy.cli.run_options import FEATURES_SHEET, METRICS_RECORD, METRICS_TABLE
from seewhy.explanation.answer import Answer, describe_chance
from seewhy.explanation.components import NETWORK, non_finite_notes
from seewhy.explanation.data import MapKey
from seewhy.explanation.flags import FLAGS
from seewhy.explanation.report import crop_sentence, visible_fraction
from seewhy.explanation.result import Explanation
from seewhy.explanation.selection import available_layer
from seewhy.images.view import View
from seewhy.rendering.overlays import OverlayStyle
from seewhy.targets.names import as_number, class_name, find_class
from seewhy.tracing.grid import format_grid

if TYPE_CHECKING:
    from seewhy.trust.metrics.measurements import Measurements

SQUASHED = 0.02  # relative change of the aspect ratio; less is rounding
MOSTLY_VISIBLE = 0.95  # of the photo; a smaller crop may have cut an object off

# "class" is a keyword, so this type needs the functional form.
LabelComparison = TypedDict(
    "LabelComparison",
    {"class": int, "name": str, "probability": float | None, "rank": int, "correct": bool, "predicted": str},
)


def compare_label(e: Explanation, label: str | None) -> LabelComparison | None:
    """Return how the model ranks the true class of the image; None without a label or class scores."""
    if label is None or e.logits is None:
        return None
    index = find_class(as_number(label), e.labels, e.logits.shape[1])
    probabilities = e.probabilities[0]
    predicted, predicted_name, _ = e.top(1)[0]
    return {
        "class": index,
        "name": class_name(index, e.labels),
        "probability": storage.finite_or_none(probabilities[index]),
        "rank": int((probabilities > probabilities[index]).sum()) + 1,
        "correct": index == predicted,
        "predicted": predicted_name,
    }


def print_explanation(
    console: Console,
    e: Explanation,
    answer: Answer,
    source: str,
    folder: Path,
    *,
    label: LabelComparison | None,
    top: int,
    style: OverlayStyle,
    known_notes: Sequence[str],
    files: Sequence[str],
    measured: Measurements | None = None,
    is_classic: bool = False,
) -> None:
    """Print one result. `known_notes` were printed when the model was loaded and are not repeated."""
    terminal.print_heading(console, source)
    print_answer(console, e, answer, folder / storage.REPORT if storage.REPORT in files else None, is_classic)
    if terminal.can_preview(console):
        layer = available_layer(e, e.methods[0], e.suggested or "")
        terminal.print_preview(console, e.overlay(e.methods[0], e.targets[0], layer, style=style, longest=256))
        console.print()
    predictions = [] if e.logits is None else e.top(top)
    if predictions and all(math.isfinite(probability) for _, _, probability in predictions):
        explained = [int(result.classes[0]) for result in e.target_results if result.classes is not None]
        terminal.print_predictions(console, predictions, explained)
    if label is not None:
        console.print(f"\n{terminal.plain(describe_label(label))}")
    method, target = e.methods[0], e.targets[0]
    console.print()
    rows = [layer_row(e, method, target, layer) for layer in e.layers_of(method)]
    terminal.print_layers(console, rows, e.target_results[0].name, method)
    if chance := describe_chance(e, method, target):
        console.print(chance, style=terminal.FAINT)
    if measured is not None:
        print_measurements(console, e, measured)
    if (count := len(e.methods) * len(e.targets)) > 1:
        text = f"The table shows the first of {count} combinations of method and target; sheet.jpg compares them."
        console.print(text, style=terminal.FAINT)
    notes = () if measured is None else measured.notes
    for note in [*e.notes, *non_finite_notes(e.target_results), *notes]:
        if note not in known_notes:
            console.print(f"note: {terminal.plain(note)}", style=terminal.FAINT)
    drawn = FEATURES_SHEET if FEATURES_SHEET in files else "overlays, sheet.jpg, overlay.jpg"
    tables = "" if measured is None else f", {METRICS_TABLE}, {METRICS_RECORD}"
    console.print(
        f"\nWrote {drawn}, maps.npz, explanation.json{tables} to [bold]{terminal.plain(str(folder))}[/]", soft_wrap=True
    )
    if storage.REPORT in files:
        console.print(
            f"Explore it in a browser: [bold]{terminal.plain(str(folder / storage.REPORT))}[/]", soft_wrap=True
        )


def print_answer(console: Console, e: Explanation, answer: Answer, page: Path | None, is_classic: bool) -> None:
    """Print the class, where its evidence is, how far to trust the map, of which layer it is, and where the page is."""
    console.print(f"[bold {terminal.ACCENT}]{terminal.plain(answer.headline)}[/]", soft_wrap=True)
    for sentence in answer.sentences:
        console.print(terminal.plain(sentence), soft_wrap=True)
    if sentence := describe_view(e, is_classic):
        console.print(sentence, soft_wrap=True)
    if answer.layer != NETWORK:
        start = "Suggested layer" if answer.layer == e.suggested else "Layer"
        console.print(f"{start}: {terminal.plain(answer.layer)}", soft_wrap=True)
    if page is not None:
        console.print(f"Page: [bold]{terminal.plain(str(page))}[/]", soft_wrap=True)
    console.print()


def describe_view(e: Explanation, is_classic: bool) -> str:
    """Return which part of the photo the model received, if it is not all of it, or if the style has changed its shape."""
    if e.images is None:
        return ""
    visible = visible_fraction(e.view)
    if visible < MOSTLY_VISIBLE:
        return f"{crop_sentence(visible)} To show it the entire photo: --fit squash"
    if is_classic and is_squashed(e.view):
        return "The classic style squashes the entire photo to the input, so probabilities differ from those of the usual crop."
    return ""


def is_squashed(view: View) -> bool:
    """Return True if the model received the photo with another aspect ratio."""
    left, top, right, bottom = view.box
    height, width = view.input_size
    return abs((right - left) * height / ((bottom - top) * width) - 1) > SQUASHED


def describe_label(label: LabelComparison) -> str:
    """Return one line about the true class: "predicted minibus, which is correct"."""
    if label["correct"]:
        return f"predicted {label['predicted']}, which is correct"
    probability = label["probability"]
    text = "not a finite number" if probability is None else f"{probability:.1%}"
    return f"predicted {label['predicted']}; the label {label['name']} has rank {label['rank']}, {text}"


def layer_row(e: Explanation, method: str, target: str, layer: str) -> terminal.LayerRow:
    evidence, names = e.positive_evidence(method, target, layer), e.flags(method, target, layer)
    assert isinstance(evidence, float) and isinstance(names, tuple)  # one image, not a batch
    flags = tuple(FLAGS[name].split(":")[0] for name in names)
    return terminal.LayerRow(
        layer,
        format_grid(e.layer_info[layer].grid),
        evidence if math.isfinite(evidence) else None,
        flags,
        layer == e.suggested,
        check_text(e, (method, target, layer)),
    )


def check_text(e: Explanation, key: MapKey) -> str:
    """Return the verdict of a map for the table, "0.57 confirmed"; "" if it was not checked."""
    if key not in e.checks or e.checks[key][0].verdict == "not checked":
        return ""
    check = e.checks[key][0]
    return f"{check.r:5.2f} {check.verdict}"
