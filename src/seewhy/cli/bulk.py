"""`seewhy bulk` and `seewhy export`. Heavy modules are imported inside the commands."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from seewhy.bulk.settings import BulkOptions, Execution
from seewhy.cli.choose import apply_choice, check_model
from seewhy.cli.exits import print_status
from seewhy.cli.flags import GROUPS, FlagSet, with_flags
from seewhy.cli.freed_memory import keep_freed_memory
from seewhy.cli.layer_hints import runnable_hints
from seewhy.cli.run_options import UseOptions
from seewhy.cli.termination import State, unwinding
from seewhy.engine.options import ModelOptions, Options, option
from seewhy.errors import UsageError

if TYPE_CHECKING:
    from seewhy.bulk.bulk_run import BulkRun

ExportKind = Literal["npz", "png", "coco", "fiftyone"]
EXECUTION = Group("Execution", sort_key=3)


@dataclass(frozen=True, kw_only=True)
class BulkOutput:
    """Where the run goes and what is printed."""

    out: Path | None = option(
        None, "Folder of the run: job.json, part-*.parquet and an event log. Required.", "path", short="-o"
    )
    json: bool = option(False, "Print one JSON object at the end to stdout, and nothing else.", "switch")
    quiet: bool = option(False, "Print only errors.", "switch", short="-q")


@with_flags(
    FlagSet(BulkOptions, skip=("channels", "include_suggested"), group=GROUPS[Options]),
    FlagSet(ModelOptions),
    FlagSet(Execution, group=EXECUTION),
    FlagSet(BulkOutput),
    FlagSet(UseOptions, group=GROUPS[Options]),
)
def bulk(
    inputs: tuple[str, ...],
    options: BulkOptions,
    model: ModelOptions,
    execution: Execution,
    output: BulkOutput,
    saved: UseOptions,
) -> int:
    """Explain a dataset and write the results to Parquet files. After an interruption, run the same command again to resume.

    Parameters
    ----------
    inputs
        Folders (if every image is in a subfolder, the subfolders are labels), a list (.txt, one path per line), a table (.csv,
        .tsv, .parquet with path, label, boxes, mask), or tar files ("train-{000..146}.tar").
    """
    if not inputs:
        raise UsageError("no input. Give a folder, a list, a table or tar files: seewhy bulk photos/ --out run")
    if output.out is None:
        raise UsageError(f"no output folder. Give one: {shlex.join(['seewhy', 'bulk', *inputs])} --out run")
    options, choice = apply_choice(options, saved.use)
    settings = options.settings
    require_packages("seewhy bulk", "pyarrow", "loky", "filelock")
    from seewhy.bulk.discovery import check_inputs
    from seewhy.bulk.part_files import run_files
    from seewhy.cli.output_checks import model_files
    from seewhy.storage.paths import check_folders, check_overwrite

    check_inputs(inputs)
    check_folders([output.out])
    check_overwrite(run_files(output.out), [*inputs, *model_files(model.uri or "", model.labels)])
    keep_freed_memory()
    from seewhy.bulk.job import run_job
    from seewhy.bulk.setting_checks import check_settings
    from seewhy.models.loading import load_model

    check_settings(settings)
    State.advice = "run the same command again to resume"
    is_silent = output.quiet or output.json
    device = "cpu" if execution.engine == "ray" else model.device
    loaded = load_model(model.uri, labels=model.labels, device=device, log=print_status, allow_code=model.allow_code)
    if choice is not None and not is_silent:
        check_model(choice, loaded.uri, loaded.weights_hash)
    for note in () if is_silent else loaded.notes:
        print_status(note)
    execution = replace(execution, memory=options.memory)
    with unwinding(), runnable_hints(model):
        outcome = run_job(loaded, inputs, output.out, settings, execution, quiet=is_silent)
    if output.json:
        from seewhy.terminal import encode_json

        print(encode_json({"run": str(output.out), **outcome.to_dict()}))
    elif not output.quiet:
        from seewhy.terminal import make_console

        make_console().print(outcome.summary(output.out), soft_wrap=True, markup=False)
    return 1 if outcome.failed else 0


def export(
    run: Path,
    /,
    *,
    to: ExportKind,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    method: str | None = None,
    target: str | None = None,
    layer: str | None = None,
    threshold: float = 0.5,
) -> int:
    """Export the maps of a bulk run as files for other programs.

    Parameters
    ----------
    run
        The output folder of seewhy bulk.
    to
        npz (signed maps), png (heatmaps at the size of the photo), coco (masks), fiftyone (heatmaps and samples.json).
    out
        Folder for the files.
    method
        Method to export, if the run has several.
    target
        Target to export, if the run has several: top1, label, or a class as passed to seewhy bulk.
    layer
        Layer to export. Default: the last.
    threshold
        For coco: the mask is where the heatmap is at least this fraction of its maximum.
    """
    require_packages("seewhy export", "pyarrow")
    from seewhy.bulk.bulk_run import BulkRun
    from seewhy.bulk.export import export as write_export

    loaded = BulkRun.read(run)
    note_incomplete(loaded)
    count = write_export(loaded, out, to, method=method, target=target, layer=layer, threshold=threshold)
    print(f"Wrote {count} maps to {out}")
    return 0


def note_incomplete(run: BulkRun) -> None:
    """Print a note about a run of which parts are missing."""
    if not run.complete:
        parts = f"{len(run.files)} of {run.settings['parts']} parts"
        print_status(
            f"note: {run.folder} is incomplete ({parts}). To complete it, run the same seewhy bulk command again."
        )


def require_packages(command: str, *packages: str) -> None:
    """Raise UsageError if an optional package is not installed."""
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UsageError(f"{command} needs {', '.join(missing)}: pip install 'seewhy[bulk]'")
