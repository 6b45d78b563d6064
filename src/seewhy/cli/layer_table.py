"""The table of a model's layers, observed in one forward pass on noise."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile

import torch
from torch import Tensor

from seewhy.engine.suggestion import suggest
from seewhy.errors import INPUT_ERRORS, LayerError, ModelError, UsageError, one_line
from seewhy.images.preprocess import Preprocess
from seewhy.models.inspection import infer_input_layout
from seewhy.models.loaded_model import LoadedModel
from seewhy.terminal import ACCENT, FAINT, encode_json, make_console, plain, plain_table, print_table
from seewhy.tracing.grid import format_grid
from seewhy.tracing.layer_selection import calls_with_grid
from seewhy.tracing.layer_specs import parse_layers
from seewhy.tracing.record import record_forward
from seewhy.tracing.trace import LayerCall, RecordingRequest


@dataclass(frozen=True)
class LayerEntry:
    """One layer. `every`: it belongs to "every"; `prefix`: the number of tokens before the first cell of the grid."""

    name: str
    kind: str
    grid: tuple[int, ...]
    channels: int
    prefix: int = 0
    every: bool = False
    suggested: bool = False


def print_layer_table(model: LoadedModel, *, include_all: bool, size: str | None = None, as_json: bool = False) -> int:
    """Print the layers of a model as a tree or as one JSON object; return the exit code.

    Lists the layers of "every" (with `include_all`: all modules with a grid) and the suggested layer. `size` ("224",
    "224x320") is the input size; None: the size that the model defines.
    """
    noise = make_noise(model, size)
    suggested, reason = find_suggestion(model, noise)
    entries = observe_layers(model, noise, suggested)
    shown = [entry for entry in entries if include_all or entry.every or entry.suggested]
    if as_json:
        record = {"model": model.uri, "input": list(noise.shape[1:]), "suggested": suggested or None, "reason": reason}
        print(encode_json({**record, "layers": [asdict(entry) for entry in shown]}))
    else:
        print_tree(shown, f"{model.uri}, input {format_grid(noise.shape[2:])}", reason)
    return 0


def observe_layers(model: LoadedModel, noise: Tensor, suggested: str) -> list[LayerEntry]:
    """Return every layer whose output has a grid, in execution order."""
    with record_forward(model.module, noise, RecordingRequest()) as trace:
        try:
            every = set(parse_layers("every", model.module).matching_calls(trace))
        except LayerError:
            every = set()
        calls = calls_with_grid(trace.calls)
        return [make_entry(call, call in every, call.name == suggested) for call in calls]


def make_entry(call: LayerCall, every: bool, suggested: bool) -> LayerEntry:
    assert call.grid is not None
    channels = call.grid.channels_first(call.output).shape[1]
    return LayerEntry(
        call.name, call.module_class.__name__, call.grid.shape, channels, call.grid.prefix, every, suggested
    )


def print_tree(entries: Sequence[LayerEntry], heading: str, reason: str) -> None:
    """Print layers as a tree: the part of a name that is shared with the line above is faint."""
    console = make_console()
    table = plain_table()
    table.add_column("", justify="right", style=FAINT, no_wrap=True)
    table.add_column("layer", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("grid", justify="right", no_wrap=True)
    table.add_column("channels", justify="right", no_wrap=True)
    table.add_column("", style=FAINT, no_wrap=True)
    count = sum(entry.every for entry in entries)
    numbers = iter(range(1, count + 1))
    for entry, (shared, own) in zip(entries, split_names([entry.name for entry in entries]), strict=True):
        style = ACCENT if entry.suggested else "default" if entry.every else FAINT
        name = f"[{FAINT}]{plain(shared)}[/][{style}]{plain(own)}[/]"
        remark = "suggested" if entry.suggested else f"+{entry.prefix} tokens" if entry.prefix else ""
        number = str(next(numbers)) if entry.every else ""
        table.add_row(number, name, entry.kind, format_grid(entry.grid), str(entry.channels), remark)
    print_table(console, table)
    console.print(f"\n{plain(heading)}: {count} layers in 'every' (numbered). {plain(reason)}", soft_wrap=True)


def split_names(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Split each name into the part that it shares with the name before it, up to a dot, and the rest.

    >>> list(split_names(["stem", "a.0.conv", "a.0.norm", "a.1"]))
    [('', 'stem'), ('', 'a.0.conv'), ('a.0.', 'norm'), ('a.', '1')]
    """
    above: list[str] = []
    for name in names:
        parts = name.split(".")
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(above, parts[:-1], strict=False)))
        yield "".join(f"{part}." for part in parts[:same]), ".".join(parts[same:])
        above = parts


def make_noise(model: LoadedModel, size: str | None) -> Tensor:
    """Return one input (1, C, *size) of Gaussian noise of the size that the model expects."""
    if isinstance(model.preprocess, Preprocess):
        channels, axes = len(model.preprocess.mean), 2
    else:
        channels, axes = infer_input_layout(model.module) or (3, 2)
    if size is not None:
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size):
            raise UsageError(f"--size {size}: give the side of the input ('224') or its axes ('224x320').")
        lengths = [int(length) for length in size.split("x")]
        lengths = lengths * axes if len(lengths) == 1 else lengths
    elif isinstance(model.preprocess, Preprocess):
        lengths = list(model.preprocess.size)
    else:
        raise ModelError(
            model.uri, "its input size is unknown, so its layers cannot be observed. Give one, such as --size 224."
        )
    like = next(model.module.parameters(), torch.zeros(()))
    return torch.randn(1, channels or 3, *lengths, generator=torch.Generator().manual_seed(0)).to(like)


def find_suggestion(model: LoadedModel, noise: Tensor) -> tuple[str, str]:
    """Return the suggested layer, or "", and a sentence with the reason."""
    try:
        suggestion = suggest(model.module, noise)
    except LayerError as error:
        return "", f"No suggestion: {error.reason}"
    except INPUT_ERRORS as error:
        size, reason = format_grid(noise.shape[2:]), one_line(error.__cause__ or error)
        raise ModelError(
            model.uri, f"it does not accept inputs of size {size} ({reason}). Give another --size."
        ) from None
    why = suggestion.note or "the last grid on which the scores depend"
    return suggestion.layer, f"The suggested layer is '{suggestion.layer}': {why}."
