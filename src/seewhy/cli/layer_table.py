"""The layers of a model with their places in the tree, seen by running it once on noise."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile

import torch
from rich.markup import escape
from torch import Tensor

from seewhy.engine.suggestion import suggest
from seewhy.errors import INPUT_ERRORS, LayerError, ModelError, UsageError, one_line
from seewhy.images.preprocess import Preprocess
from seewhy.models.loaded import infer_input_layout
from seewhy.models.loading import LoadedModel
from seewhy.terminal import ACCENT, FAINT, make_console, plain_table
from seewhy.tracing.layer_selection import has_grid, parse_layers
from seewhy.tracing.record import record_forward
from seewhy.tracing.trace import LayerCall, RecordingRequest


@dataclass(frozen=True)
class Row:
    """One layer: `every` says that "every" explains it, `prefix` counts tokens before the first cell."""

    name: str
    kind: str
    grid: tuple[int, ...]
    channels: int
    prefix: int = 0
    every: bool = False
    suggested: bool = False


def print_layer_table(
    model: LoadedModel,
    *,
    everything: bool,
    size: str | None = None,
    as_json: bool = False,
    log: Callable[[str], None] = lambda note: None,
) -> int:
    """Print every layer that "every" explains (`everything`: all modules with a grid), and the suggested one, as a tree or
    as one JSON object. `size` ("224", "224x320") is the input's, where the model does not tell its own or another is wanted;
    `log` is told the model's notes. Gives the exit code."""
    for note in model.notes:
        log(note)
    noise = noise_for(model, size)
    suggested, reason = find_suggestion(model, noise)
    with record_forward(model.module, noise, RecordingRequest()) as trace:
        try:
            every = set(parse_layers("every", model.module).matching_calls(trace))
        except LayerError:
            every = set()
        rows = [row_of(call, call in every, suggested) for call in trace.calls if has_grid(call)]
    rows = [row for row in rows if everything or row.every or row.suggested]
    count, shown = sum(row.every for row in rows), "x".join(map(str, noise.shape[2:]))
    if as_json:
        about = {"model": model.uri, "input": list(noise.shape[1:]), "suggested": suggested or None, "reason": reason}
        print(json.dumps({**about, "layers": [asdict(row) for row in rows]}, ensure_ascii=False))
        return 0
    console = make_console()
    table = plain_table()
    table.add_column("", justify="right", style=FAINT, no_wrap=True)
    table.add_column("layer", overflow="fold")
    table.add_column("kind", no_wrap=True)
    table.add_column("grid", justify="right", no_wrap=True)
    table.add_column("channels", justify="right", no_wrap=True)
    table.add_column("", style=FAINT, no_wrap=True)
    numbers = iter(range(1, count + 1))
    for row, (shared, own) in zip(rows, branches([row.name for row in rows]), strict=True):
        style = ACCENT if row.suggested else "default" if row.every else FAINT
        name = f"[{FAINT}]{escape(shared)}[/][{style}]{escape(own)}[/]"
        remark = "suggested" if row.suggested else f"+{row.prefix} tokens" if row.prefix else ""
        number = str(next(numbers)) if row.every else ""
        table.add_row(number, name, row.kind, "x".join(map(str, row.grid)), str(row.channels), remark)
    console.print(table)
    console.print(
        f"\n{escape(model.uri)}, input {shown}: {count} layers in 'every' (numbered). {escape(reason)}", soft_wrap=True
    )
    return 0


def row_of(call: LayerCall, every: bool, suggested: str) -> Row:
    assert call.grid is not None
    channels = call.grid.channels_first(call.output).shape[1]
    return Row(
        call.name, call.module_class.__name__, call.grid.shape, channels, call.grid.prefix, every, call.name == suggested
    )


def branches(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each name in two parts: what it shares with the line above, up to a dot, and the rest, so that a list of whole names
    reads as a tree.

    >>> list(branches(["stem", "a.0.conv", "a.0.norm", "a.1"]))
    [('', 'stem'), ('', 'a.0.conv'), ('a.0.', 'norm'), ('a.', '1')]
    """
    above: list[str] = []
    for name in names:
        parts = name.split(".")
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(above, parts[:-1], strict=False)))
        yield "".join(f"{part}." for part in parts[:same]), ".".join(parts[same:])
        above = parts


def noise_for(model: LoadedModel, size: str | None) -> Tensor:
    """One picture, signal or volume of noise of the size that the model takes."""
    if isinstance(model.preprocess, Preprocess):
        channels, axes = len(model.preprocess.mean), 2
    else:
        channels, axes = infer_input_layout(model.module) or (3, 2)
    if size is not None:
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size):
            raise UsageError(f"--size {size}: give the side of the input ('224'), or its axes ('224x320').")
        lengths = [int(length) for length in size.split("x")]
        lengths = lengths * axes if len(lengths) == 1 else lengths
    elif isinstance(model.preprocess, Preprocess):
        lengths = list(model.preprocess.size)
    else:
        raise ModelError(
            model.uri, "its input size is not known, so it cannot be run to see its layers; say --size 224."
        )
    like = next(model.module.parameters(), torch.zeros(()))
    return torch.randn(1, channels or 3, *lengths, generator=torch.Generator().manual_seed(0)).to(like)


def find_suggestion(model: LoadedModel, noise: Tensor) -> tuple[str, str]:
    """The suggested layer, or "", and one sentence that says why."""
    try:
        found = suggest(model.module, noise)
    except LayerError as error:
        return "", f"No suggestion: {error.reason}"
    except INPUT_ERRORS as error:
        said = one_line(error.__cause__ or error)
        shown = "x".join(map(str, noise.shape[2:]))
        raise ModelError(model.uri, f"it does not take inputs of size {shown} ({said}); say another --size.") from None
    why = found.note or "the last grid that the scores depend on"
    return found.layer, f"The suggested layer is '{found.layer}': {why}."
