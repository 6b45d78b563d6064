"""The commands for whole data sets: bulk, export. Everything heavy is imported inside."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from seewhy.cli.exits import print_status
from seewhy.errors import UsageError
from seewhy.methods.catalog import split, split_targets

Names = list[str] | None
what = Group("What to explain", sort_key=1)
how = Group("How it runs", sort_key=2)


def bulk(
    *inputs: str,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    model: Annotated[str | None, Parameter(name=["--model", "-m"], group=what)] = None,
    layers: Annotated[Names, Parameter(name=["--layers", "-l"], group=what)] = None,
    methods: Annotated[Names, Parameter(group=what)] = None,
    targets: Annotated[Names, Parameter(name=["--targets", "-t"], group=what)] = None,
    versus: Annotated[Names, Parameter(group=what)] = None,
    read_at: Annotated[Literal["convolution", "activation"], Parameter(group=what)] = "convolution",
    grid: Annotated[str | None, Parameter(group=what)] = None,
    multilabel: Annotated[bool, Parameter(group=what)] = False,
    fit: Annotated[Literal["crop", "squash", "pad"] | None, Parameter(group=what)] = None,
    labels: Annotated[str | None, Parameter(group=what)] = None,
    num_classes: Annotated[int | None, Parameter(group=what)] = None,
    allow_code: Annotated[bool, Parameter(group=what)] = False,
    seed: Annotated[int, Parameter(group=what)] = 0,
    store: Annotated[Literal["uint8", "float16"], Parameter(group=what)] = "uint8",
    max_pixels: Annotated[int, Parameter(group=what)] = 50_000_000,
    engine: Annotated[Literal["local", "ray"], Parameter(group=how)] = "local",
    batch_size: Annotated[int | None, Parameter(group=how)] = None,
    part_size: Annotated[int, Parameter(group=how)] = 256,
    workers: Annotated[int | None, Parameter(group=how)] = None,
    actors: Annotated[int | None, Parameter(group=how)] = None,
    shard: Annotated[str, Parameter(group=how)] = "0/1",
    device: Annotated[str, Parameter(group=how)] = "auto",
    memory: Annotated[int, Parameter(group=how)] = 256,
    retry_failed: Annotated[bool, Parameter(group=how)] = False,
    json: Annotated[bool, Parameter(group=how)] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], group=how)] = False,
) -> int:
    """Explain a whole data set into Parquet files. The same command goes on where it was interrupted.

    Parameters
    ----------
    inputs
        Folders (the folders inside may be the labels), a list (.txt, a path a line), a table (.csv, .tsv, .parquet with path,
        label, boxes, mask), tar files ("train-{000..146}.tar").
    out
        Folder of the run: job.json, part-*.parquet, a log.
    model
        As for the main command.
    layers
        "suggested" (default), "every", names, globs: as for the main command. All layers take a hundred times the room.
    methods
        As for the main command.
    targets
        "predicted" (default), "label" (the class that each picture is labelled with), "top3", classes.
    versus
        Why the targets and not these classes.
    read_at
        Read each convolution at its own output, or at the activation after it.
    grid
        How tokens lie on the picture, where that cannot be told: "14x14".
    multilabel
        Each class has a probability of its own, beside the others.
    fit
        How a photo meets the input: "crop" (the model's own), "squash" (all of it, distorted), "pad" (all of it).
    labels
        The model's class names: a text file, one a line, or "cat,dog".
    num_classes
        How many classes the network was trained for, where that is not in the name or in the weights.
    allow_code
        Run the code that a --model of the form module:function names.
    seed
        For methods that draw random numbers.
    store
        How maps are kept: uint8 with a scale for each, or float16, which is twice as large.
    max_pixels
        Refuse pictures larger than this before decoding them.
    engine
        "local", or "ray": on a cluster where RAY_ADDRESS names one.
    batch_size
        Pictures explained at a time; found by trying where it is not given, and kept for the whole job.
    part_size
        Pictures a part file: what is done again after an interruption.
    workers
        Processes that read pictures (on Ray: for each actor); 0 reads in a thread. Default: half of the cores, at most 16.
    actors
        On Ray, how many models at once. Default: one a GPU, or one a core.
    shard
        i/n: do only each n-th part, from i. For torchrun, Slurm, Kubernetes.
    device
        auto, cpu, cuda, cuda:1 or mps.
    memory
        Megabytes for a batch of changed pictures, for methods that ask the network again.
    retry_failed
        Do the parts again in which pictures failed.
    json
        Print one JSON object at the end, and nothing else, to stdout.
    quiet
        Print nothing but errors.
    """
    if not inputs:
        raise UsageError("no input. Give a folder, a list, a table or tar files: seewhy bulk photos/ --out run")
    from seewhy.bulk.plan import PREDICTED, BulkSettings

    questions = BulkSettings(
        methods=tuple(split(methods) or ()), layers=tuple(split(layers) or ("suggested",)),
        targets=tuple(split_targets(targets) or (PREDICTED,)), versus=tuple(split_targets(versus) or ()),
        read_at=read_at, grid=grid, multilabel=multilabel, fit=fit, seed=seed, store=store, max_pixels=max_pixels,
    )  # fmt: skip
    require_packages("seewhy bulk", "pyarrow", "loky", "filelock")
    from seewhy.bulk.part_files import read_shard

    own = read_shard(shard)
    from seewhy.bulk.job import run_job
    from seewhy.bulk.worker import Resources
    from seewhy.engine.options import ModelOptions
    from seewhy.models.loading import load_model

    name = ModelOptions(model=model, num_classes=num_classes).uri
    loaded = load_model(
        name, labels=labels, device="cpu" if engine == "ray" else device, log=print_status, allow_code=allow_code
    )
    for note in () if quiet or json else loaded.notes:
        print_status(note)
    means = Resources(workers, memory * 2**20)
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # a scheduler that takes a machine back: end as for Ctrl-C
    outcome = run_job(
        loaded, inputs, out, questions, means=means, batch=batch_size, part_size=part_size, shard=own, engine=engine,
        actors=actors, retry=retry_failed, quiet=quiet or json,
    )  # fmt: skip
    if json:
        import json as writer

        print(writer.dumps({"run": str(out), **outcome.to_dict()}))
    elif not quiet:
        from seewhy.terminal import make_console

        make_console().print(outcome.sentence(out), soft_wrap=True, markup=False)
    return 1 if outcome.failed else 0


def export(
    run: Path,
    /,
    *,
    to: Literal["npz", "png", "coco", "fiftyone"],
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    method: str | None = None,
    target: str | None = None,
    layer: str | None = None,
    threshold: float = 0.5,
) -> int:
    """Write the maps of a run as files that other programs read.

    Parameters
    ----------
    run
        A folder that seewhy bulk wrote.
    to
        npz (signed maps), png (heat on the photo), coco (masks), fiftyone (heat and samples.json).
    out
        Where the files go.
    method
        Of several methods, which.
    target
        Of several targets, which: top1, label, a class as it was asked.
    layer
        Of several layers, which; the last by default.
    threshold
        For coco: a mask is where the heat is at least this share of its maximum.
    """
    require_packages("seewhy export", "pyarrow")
    from seewhy.bulk.bulk_run import BulkRun
    from seewhy.bulk.export import export as write

    count = write(BulkRun.read(run), out, to, method=method, target=target, layer=layer, threshold=threshold)
    print(f"{count} maps in {out}")
    return 0


def require_packages(command: str, *packages: str) -> None:
    """Raise UsageError where a package that an extra brings is not there."""
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UsageError(f"{command} needs {', '.join(missing)}: pip install 'seewhy[bulk]'")
