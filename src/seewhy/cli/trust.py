"""`seewhy trust` and `seewhy metrics`. Heavy modules are imported inside the commands."""

from __future__ import annotations

from seewhy.cli.flags import FlagSet, with_flags
from seewhy.cli.image_commands import explain_images
from seewhy.cli.run_options import DrawingOptions, MetricOptions, OutputOptions
from seewhy.engine.options import ModelOptions, Options
from seewhy.errors import UsageError


@with_flags(
    FlagSet(MetricOptions),
    FlagSet(Options, skip=("channels",)),
    FlagSet(ModelOptions),
    FlagSet(OutputOptions, skip=("no_check",)),
)
def trust(
    images: tuple[str, ...], metrics: MetricOptions, options: Options, model: ModelOptions, output: OutputOptions
) -> int:
    """Measure how well each map predicts what the model reads: the check, and metrics that cover parts of the image.

    Writes what the main command writes, the curves of the removal test into the page, and the table to metrics.csv and
    metrics.json.

    Parameters
    ----------
    images
        Image files and folders; "-" reads one image from stdin.
    """
    if not images:
        raise UsageError("no image. Pass image files or folders: seewhy trust bus.jpg")
    return explain_images(images, options, model, DrawingOptions(), output, metrics)


def metrics(name: str | None = None, /, *, json: bool = False) -> int:
    """List the metrics of seewhy trust: formula, paper, direction, cost and known trap.

    Parameters
    ----------
    name
        Print one metric.
    json
        Print a JSON list.
    """
    from seewhy.terminal import ACCENT, FAINT, encode_json, make_console, plain
    from seewhy.trust.metrics.metric import choose_metrics
    from seewhy.trust.metrics.metric_list import METRICS

    chosen = choose_metrics(METRICS, "all" if name is None else name)
    if json:
        print(encode_json([metric.to_dict() for metric in chosen]))
        return 0
    console = make_console()
    for metric in chosen:
        card = metric.card
        better = "" if card.better == "neither" else f", {card.better} is better"
        console.print(f"[bold {ACCENT}]{metric.name}[/]{better}  [{FAINT}]{plain(card.paper)}[/]", soft_wrap=True)
        console.print(f"    {plain(card.formula)}", soft_wrap=True)
        console.print(f"    [{FAINT}]By chance: {plain(card.chance)}. Cost: {plain(card.cost)}.[/]", soft_wrap=True)
        console.print(f"    [{FAINT}]Trap: {plain(card.trap)}[/]", soft_wrap=True)
    return 0
