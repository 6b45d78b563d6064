"""The layers of a model as a table, seen by running it once on noise."""

from __future__ import annotations

import torch
from rich.markup import escape

from seewhy.console import ACCENT, FAINT, make_console, plain_table
from seewhy.errors import LayerError, ModelError
from seewhy.layers import has_grid, select
from seewhy.models import LoadedModel
from seewhy.preprocess import Preprocess
from seewhy.record import recording
from seewhy.suggestion import suggest
from seewhy.trace import Wanted


def print_layer_table(model: LoadedModel, *, everything: bool) -> None:
    """Print every layer that "every" explains (`everything`: all modules with a grid), and the suggested one."""
    if not isinstance(model.preprocess, Preprocess):
        raise ModelError(model.uri, "its input size is not known, so it cannot be run to see its layers.")
    generator = torch.Generator().manual_seed(0)
    channels, like = len(model.preprocess.mean), next(model.module.parameters())
    noise = torch.randn(1, channels, *model.preprocess.size, generator=generator).to(like)
    suggested, remark = find_suggestion(model, noise)
    with recording(model.module, noise, Wanted()) as trace:
        try:
            every = set(select("every", model.module).pick(trace))
        except LayerError:
            every = set()
        console = make_console()
        table = plain_table()
        for title, justify in (
            ("", "right"),
            ("layer", "left"),
            ("kind", "left"),
            ("grid", "right"),
            ("channels", "right"),
        ):
            table.add_column(title, justify=justify)  # type: ignore[arg-type]
        table.add_column("", style=FAINT)
        number = 0
        for call in trace.calls:
            number += call in every
            if not has_grid(call) or not (everything or call in every or call.name == suggested):
                continue
            assert call.grid is not None
            style = ACCENT if call.name == suggested else "default" if call in every else FAINT
            table.add_row(
                f"[{FAINT}]{number if call in every else ''}[/]", f"[{style}]{escape(call.name)}[/]", call.kind.__name__,
                str(call.grid), str(call.grid.channels_first(call.output).shape[1]),
                "suggested" if call.name == suggested else "",
            )  # fmt: skip
        console.print(table)
    height, width = model.preprocess.size
    console.print(
        f"\n{escape(model.uri)}, input {height}x{width}: {len(every)} layers in 'every'. {remark}", soft_wrap=True
    )


def find_suggestion(model: LoadedModel, noise: torch.Tensor) -> tuple[str, str]:
    try:
        found = suggest(model.module, noise)
        return found.layer, f"The suggested layer is the last grid that the scores depend on. {found.note}".strip()
    except LayerError as error:
        return "", f"No suggestion: {error.reason}"
