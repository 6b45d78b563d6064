"""`explain`, the main function of the library."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from torch import nn

from seewhy.engine.inputs import InputSpec
from seewhy.engine.keywords import suggest_keywords
from seewhy.engine.options import Fast, Fit, Options, ReadAt, Scores
from seewhy.engine.pipeline import Explainer
from seewhy.engine.progress import Progress
from seewhy.errors import UsageError
from seewhy.explanation.result import Explanation
from seewhy.fast.prepared import PreparedModel, as_prepared
from seewhy.images.preprocess import Preprocess
from seewhy.methods.parsing import MethodSpec
from seewhy.models.loaded_model import LoadedModel, PreprocessFunction
from seewhy.models.loading import load_model
from seewhy.targets.parsing import TargetSpec
from seewhy.tracing.grid import GridSpec
from seewhy.tracing.layer_specs import LayerSpec

RENAMED = {"site": "read_at", "suggested": "include_suggested", "features": "channels"}


@suggest_keywords(RENAMED)
def explain(
    model: nn.Module | LoadedModel,
    inputs: InputSpec,
    *,
    methods: MethodSpec = None,
    layers: LayerSpec = None,
    read_at: ReadAt = "convolution",
    grid: GridSpec = None,
    targets: TargetSpec = None,
    versus: TargetSpec = None,
    scores: Scores | None = None,
    multilabel: bool = False,
    arguments: Mapping[str, object] | None = None,
    main: str | int | None = None,
    preprocess: Preprocess | PreprocessFunction | None = None,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    fit: Fit | None = None,
    include_suggested: bool = False,
    fast: Fast | None = None,
    channels: int = 0,
    seed: int = 0,
    memory: float = 256,
    progress: Progress | None = None,
) -> Explanation:
    """Compute class activation maps for every combination of method, target and layer.

    All gradient-based methods and all layers share one forward pass and one backward pass per target. The model is never
    modified: hooks run on a twin that shares its parameters.

    Args:
        model: An `nn.Module`, or a `LoadedModel` from `seewhy.load_model`.
        inputs: A float tensor `(B, C, *size)` that is ready for the model; or an image (path, PIL image, `uint8` array
            `(H, W, 3)`, bytes) or a list of images, which the model's preprocessing turns into one. For a model with
            several inputs: all of them, as a tuple or a dict.
        methods: Method names with settings, such as "scorecam(batch_size=64)", or `Method` instances, or a list. "all" and
            "fast" select groups of methods; those that do not fit the model are skipped. Default: Grad-CAM, or HiResCAM
            for targets that have a location.
        layers: Layer names, glob patterns, module classes, positions, "every", "convs", "blocks", "stages", "all", or
            "suggested" (default). "branches" adds the layers of branches parallel to the suggested one.
        read_at: Read convolutions at their own output ("convolution"), or at the "activation" after them.
        grid: How tokens map to the image, if that cannot be inferred: `(14, 14)`, or "14x14+1" with one token before
            the grid.
        targets: Classes by index or name, "topK", texts such as "region:bus", `Target` instances, or functions of the
            output that return one score per row. Each entry of a list is one target, computed for every image. Default: the
            predicted class of each image.
        versus: Classes to subtract, to answer "why A and not B".
        scores: What the class scores of the model are: "logits" or "probabilities". Default: probabilities if they lie in
            [0, 1] for any input, as after a softmax or sigmoid; else logits.
        multilabel: True if classes are not exclusive, so that each has its own sigmoid probability.
        arguments: Keyword arguments for the model, in addition to `inputs`.
        main: Which of several inputs is explained: a name or a position.
        preprocess: Turns an image into a model input. Default: the preprocessing of the loaded model.
        labels: Class names, or a file with one name per line. Default: the labels of the loaded model.
        fit: How an image is fitted to the input size: "crop" (the model's own), "squash" (distorted) or "pad".
        include_suggested: Also explain the suggested layer, and store its name in `Explanation.suggested`.
        fast: "exact" or "bf16" prepares the model for this call (see `seewhy.prepare`), which pays for methods with many extra
            passes; "off" uses the model of a prepared one. Default: the model as given.
        channels: Number of strongest channels to keep per layer, for `Explanation.features`.
        seed: Seed of methods that draw random numbers and whose own seed is not set.
        memory: Megabytes for one batch of changed images, in methods that run extra passes.
        progress: Called with (rows done, rows in total) by methods that run extra passes.

    Returns:
        An `Explanation` with signed maps `(B, *grid)`, in the units of each method.

    Raises:
        UsageError: An argument is invalid, or a combination is not supported (`UnknownName`, `LayerError`, `MethodError`,
            `TargetError` and `ModelError` are subclasses).
        ImageError: An image cannot be read.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> e = explain(net, torch.rand(1, 3, 8, 8), methods=["gradcam", "hirescam"], layers="every", targets=[0, 1])
        >>> e.map(method="gradcam", target=1).shape
        torch.Size([1, 6, 6])

    References:
        Selvaraju et al., "Grad-CAM", ICCV 2017, https://doi.org/10.1109/ICCV.2017.74
    """
    options = Options(
        methods=methods,
        layers=layers,
        read_at=read_at,
        grid=grid,
        targets=targets,
        versus=versus,
        scores=scores,
        multilabel=multilabel,
        fit=fit,
        include_suggested=include_suggested,
        fast=fast,
        channels=channels,
        seed=seed,
        memory=memory,
    )
    if model is None:  # load_model would return the embedded model
        raise UsageError("model=None: pass a module, or a name such as 'embedded'.")
    loaded = load_model(model, preprocess=preprocess, labels=labels)
    loaded = loaded if fast is None else as_prepared(loaded, fast)
    is_loaded = isinstance(model, LoadedModel) and not (isinstance(model, PreparedModel) and model.is_bare)
    # A bare module may be in training, and hashing its weights would take longer than the maps.
    explainer = Explainer(loaded, options, hash_weights=is_loaded)
    return explainer.explain(inputs, arguments=arguments, main=main, progress=progress)
