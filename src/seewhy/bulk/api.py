"""`explain_all`: the Python interface of `seewhy bulk`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import nn

from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.job import run_job
from seewhy.bulk.settings import PART_SIZE, BulkOptions, EngineName, Execution, Shard, Store
from seewhy.engine.keywords import suggest_keywords
from seewhy.engine.options import Fast, ReadAt
from seewhy.errors import UsageError, describe_argument
from seewhy.images.loading import MAX_PIXELS
from seewhy.images.preprocess import Fit, Preprocess
from seewhy.models.loaded_model import LoadedModel, PreprocessFunction
from seewhy.models.loading import load_model
from seewhy.storage.paths import check_named

Pathlike = str | os.PathLike[str]
Names = str | Sequence[str] | None


@suggest_keywords({"site": "read_at"})
def explain_all(
    model: str | os.PathLike[str] | nn.Module | LoadedModel | None,
    inputs: Pathlike | Sequence[Pathlike],
    out: Pathlike,
    *,
    methods: Names = None,
    layers: Names = None,
    read_at: ReadAt = "convolution",
    grid: str | None = None,
    targets: Names = None,
    versus: Names = None,
    multilabel: bool = False,
    preprocess: Preprocess | PreprocessFunction | None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    fit: Fit | None = None,
    seed: int = 0,
    fast: Fast = "exact",
    memory: float = 256,
    store: Store = "uint8",
    max_pixels: int = MAX_PIXELS,
    check: bool = False,
    batch_size: int | None = None,
    part_size: int = PART_SIZE,
    workers: int | None = None,
    shard: Shard = (0, 1),
    engine: EngineName = "local",
    actors: int | None = None,
    retry_failed: bool = False,
    quiet: bool = False,
) -> BulkRun:
    """Compute class activation maps for a dataset, as Parquet files in a folder. The Python interface of `seewhy bulk`.

    An interrupted job resumes with the same call: finished parts are kept. An image that cannot be read or explained gets a
    row with the reason in the `error` column.

    Args:
        model: Anything that `seewhy.load_model` accepts: a model URI such as "timm/resnet50", an `nn.Module`, a
            `LoadedModel`, or None for the embedded network.
        inputs: A folder, a list (.txt), a table (.csv, .tsv, .parquet), an image, tar files, or several of these.
        out: Folder of the run. It must be new, or contain a run with the same settings.
        methods: Names of methods, with settings. Groups ("all", "fast") are not supported. Default: Grad-CAM, or
            HiResCAM for targets that have a location.
        layers: Layer names, glob patterns, "every", or "suggested" (default): one layer for the entire dataset.
        read_at: Read convolutions at their own output ("convolution"), or at the "activation" after them.
        grid: Grid of the tokens where it cannot be inferred: "14x14".
        targets: "predicted" (default), "label" (the class of each image's own label), "topK", or classes by index or name.
        versus: Classes to subtract, to answer "why A and not B".
        multilabel: True if classes are not exclusive, so that each has its own sigmoid probability.
        preprocess: Turns an image into a model input. Default: the preprocessing of the loaded model.
        labels: Class names, or a file with one name per line. Default: the labels of the loaded model.
        fit: How an image is fitted to the input size: "crop" (the model's own), "squash" (distorted) or "pad".
        seed: Seed of methods that draw random numbers and whose own seed is not set.
        fast: "exact" prepares the model once (see `seewhy.prepare`), "bf16" also computes gradients in bfloat16, "off" does
            not.
        memory: Megabytes for one batch of changed images, in methods that run extra passes and in the check.
        store: Format of maps: "uint8" (with a scale per map) or "float16" (twice the size).
        max_pixels: Larger images are not decoded and get an error. At least 1.
        check: Check each map (see `seewhy.trust.check`), with 28 more forward passes for each image. The run has the columns
            `check`, `check_r`, `check_p` and `check_reason`.
        batch_size: Images per forward pass, at least 1. Default: tuned at the first start, then kept.
        part_size: Images per part file, at least 1. An interrupted part is computed again.
        workers: Processes that decode images; 0 decodes in a thread. Default: half of the CPUs, at most 16.
        shard: `(i, n)` with `0 <= i < n`: compute every n-th part, starting at i.
        engine: "local" (this process) or "ray" (a Ray cluster; `RAY_ADDRESS` selects an existing one).
        actors: Model copies on Ray, at least 1. Default: one per GPU, or one per CPU.
        retry_failed: Compute the parts again that contain failed images.
        quiet: Print no progress, notes and failed images to stderr.

    Returns:
        The run. With several shards it contains the parts that are finished so far.

    Raises:
        UsageError: An argument is invalid or not supported, there are no images, `out` contains a run with other settings
            or is in use by another process, the disk is full, or a device failed.

    Example:
        >>> import tempfile
        >>> from seewhy.images.samples import sample
        >>> run = explain_all(None, sample("coffee"), tempfile.mkdtemp(), workers=0, quiet=True)
        >>> run.table["target_name"].to_pylist()
        ['espresso']
    """
    options = BulkOptions(
        methods=methods, layers=layers, read_at=read_at, grid=grid, targets=targets, versus=versus, multilabel=multilabel,
        fit=fit, seed=seed, fast=fast, memory=memory, store=store, max_pixels=max_pixels, check=check,
    )  # fmt: skip
    execution = Execution(
        engine=engine, batch_size=batch_size, part_size=part_size, workers=workers, actors=actors,
        shard=f"{shard[0]}/{shard[1]}", retry_failed=retry_failed, memory=options.memory,
    )  # fmt: skip
    check_named(out)
    paths = as_paths(inputs)
    loaded = load_model(model, preprocess=preprocess, labels=labels)
    run_job(loaded, paths, Path(out), options.settings, execution, quiet=quiet)
    return BulkRun.read(out)


def as_paths(inputs: object) -> list[str]:
    """Return the inputs of a job as a list of paths. Raises UsageError for anything else, such as tensors."""
    given = list(inputs) if isinstance(inputs, Iterable) and not isinstance(inputs, str | os.PathLike) else [inputs]
    paths = list[str]()
    for path in given:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(
                f"inputs={describe_argument(path)}: pass a folder, image files, a table or tar files. For tensors and PIL "
                "images, use seewhy.explain."
            )
        paths.append(os.fspath(path))
    return paths
