"""`TrainingMaps`: maps of the same images every n steps of a training run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import SupportsIndex

import torch
from torch import Tensor

from seewhy.engine.explain import explain
from seewhy.engine.options import Options
from seewhy.errors import UsageError
from seewhy.explanation.components import NETWORK
from seewhy.explanation.result import Explanation
from seewhy.images.preprocess import Preprocess
from seewhy.integrations.sinks.base import LoggedImage, RedrawingSink, Sink
from seewhy.integrations.sinks.parsing import SinkSpec, as_sinks
from seewhy.integrations.training.argument_checks import check_classes, check_count, check_step
from seewhy.integrations.training.failures import describe, warn
from seewhy.integrations.training.fixed_images import ImagesSpec, read_images
from seewhy.integrations.training.frames import Snapshot, take_snapshots
from seewhy.integrations.training.isolation import isolated
from seewhy.integrations.training.model_access import (
    ModelSpec,
    device_of,
    dtype_of,
    is_main_process,
    is_uninitialized,
    resolve_model,
)
from seewhy.integrations.training.scales import SharedScales, by_step
from seewhy.integrations.training.schedule import Schedule
from seewhy.methods.parsing import MethodSpec, as_methods
from seewhy.models.labels import read_labels
from seewhy.models.loaded_model import PreprocessFunction
from seewhy.models.loading import check_preprocess
from seewhy.rendering.backgrounds import Background
from seewhy.rendering.overlays import OverlayStyle, as_style, check_scale
from seewhy.targets import ClassScore, as_targets
from seewhy.targets.parsing import TargetSpec
from seewhy.tracing.grid import GridSpec, parse_grid
from seewhy.tracing.layer_specs import LayerSpec

DEFAULT_FOLDER = "seewhy_maps"


class TrainingMaps:
    """Computes maps of the same images every n steps of a training run, and passes them to sinks.

    Training is bit for bit what it would be without it: maps are computed on a twin in eval mode, outside autocast, and all
    random states are restored. After construction, `step` never raises an error: if maps cannot be computed, it warns once and
    stops; if a sink fails, it warns once and stops logging to this sink. In distributed training, only rank 0 logs.

    For Lightning and the `Trainer` of transformers, pass it to `LightningCallback` or `TrainerCallback`.

    Args:
        images: The images: a float tensor `(B, C, *size)` that is ready for the model, or image files, PIL images or arrays
            with `preprocess`. They are read once.
        classes: The true class of each image: indices, or names with `labels`. The maps of all steps explain this class.
        targets: What to explain instead, as in `seewhy.explain`. Default without `classes`: the class that is predicted at the
            step, which may change from step to step.
        methods: As in `seewhy.explain`.
        layers: As in `seewhy.explain`. Default: the suggested layer. Groups and patterns are resolved at the first step; the
            layers remain the same from then on.
        every: Number of optimizer steps between maps, at least 1.
        sinks: A folder, a `SummaryWriter`, a run of W&B, any `Sink`, or a list of these. Default: the folder "seewhy_maps";
            the callbacks use the loggers of the trainer.
        names: A name for each image. Default: names of the files, or "image_1", ...
        labels: Class names of the model, or a file with one per line.
        preprocess: Turns an image into a model input, as in `seewhy.explain`. For a tensor: how it was made, so that
            its colors are drawn correctly.
        grid: How tokens map to the image, if that cannot be inferred.
        multilabel: True if classes are not exclusive.
        scale: "own" divides each heatmap by its maximum: compare places. "shared" divides by the maximum of the same
            image over all steps: compare strengths. Earlier images in a folder are drawn again when the maximum has risen.
        style: Colors and opacity of the overlays.
        side: Longer side of the overlays in pixels, 32 to 4096.

    Raises:
        UsageError: An argument is invalid. Names of layers and classes are checked at the first step, or by `check`.
        ImageError: An image cannot be read.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> log = TrainingMaps(torch.rand(2, 3, 8, 8), classes=[0, 3], every=2, sinks=tempfile.mkdtemp())
        >>> [log.step(step, net) for step in range(5)]
        [True, False, True, False, True]
        >>> log.close()
    """

    def __init__(
        self,
        images: ImagesSpec,
        *,
        classes: Sequence[int | str] | Tensor | None = None,
        targets: TargetSpec = None,
        methods: MethodSpec = None,
        layers: LayerSpec = None,
        every: int = 500,
        sinks: SinkSpec | Sequence[SinkSpec] | None = None,
        names: Sequence[str] | None = None,
        labels: Sequence[str] | str | None = None,
        preprocess: Preprocess | PreprocessFunction | None = None,
        grid: GridSpec = None,
        multilabel: bool = False,
        scale: str = "own",
        style: OverlayStyle | None = None,
        side: int = 256,
    ) -> None:
        check_count("every", every, 1, sys.maxsize, "pass the number of steps between maps, at least 1.")
        check_count("side", side, 32, 4096, "pass the longer side of the overlays in pixels, 32 to 4096.")
        if classes is not None and targets is not None:
            raise UsageError(
                "pass classes= or targets=, not both: the target of classes= is the true class of each image."
            )
        if preprocess is not None:
            check_preprocess(preprocess)
        if grid is not None:
            parse_grid(grid)
        self.images = read_images(images, preprocess, names)
        if classes is not None:
            classes = check_classes(classes, len(self.images))
        self.targets = targets if classes is None else ClassScore(classes)
        as_targets(self.targets)  # raises an error now, not during training
        as_methods(methods)
        Options(methods=methods, layers=layers, targets=self.targets, grid=grid, multilabel=multilabel)
        self.has_classes = classes is not None
        self.methods, self.layers, self.grid, self.multilabel = methods, layers, grid, multilabel
        self.labels = None if labels is None else read_labels(labels)
        self.preprocess, self.style, self.side = preprocess, as_style(style), side
        self.sinks: list[Sink] | None = None if sinks is None else as_sinks(sinks)
        self.schedule = Schedule(every)
        self.scales = SharedScales() if check_scale(scale) == "shared" else None
        self.is_disabled = False
        self._has_names = False  # whether `layers` are names, which were resolved at the first step
        self._last_logged: int | None = None
        self._backgrounds: dict[str, Background] = {}

    def step(self, step: SupportsIndex, model: ModelSpec, *, force: bool = False) -> bool:
        """Log maps if the step is a multiple of `every`; call it once after each optimizer step.

        Args:
            step: Number of optimizer steps so far.
            model: The module that is trained, also if it is wrapped (DDP, `torch.compile`) or in training mode. Or a function
                that returns the module to explain, such as `lambda: ema.module`; it is called only when maps are due.
            force: Log this step in any case, for example the last one.

        Returns:
            True if maps were logged.
        """
        if self.is_disabled or not is_main_process():
            return False
        try:
            number = check_step(step)
            is_due = self.schedule.is_due(number) or force
            if not is_due or number == self._last_logged:
                return False
            module = resolve_model(model)
            if is_uninitialized(module):  # lazy modules before the first batch
                return False
            snapshots = self._take(number, module)
        except Exception as error:  # training continues, whatever happened
            self.disable(f"from step {step} on: {describe(error)}")
            return False
        self._last_logged = number
        return self._send(snapshots, number)

    def check(self, model: ModelSpec) -> Explanation:
        """Explain the images with a model now, so that errors are found before training. This logs nothing.

        Args:
            model: As for `step`.

        Returns:
            The explanation of all images.

        Raises:
            SeewhyError: The maps cannot be computed.
        """
        module = resolve_model(model)
        with isolated(device_of(module)):
            return self._explain(module)

    def close(self) -> None:
        """Close the sinks. Maps that are on a shared scale are drawn again on the final one."""
        if self.scales is not None:
            self._redraw(self.scales.finish())
        for sink in list(self.sinks or ()):
            try:
                sink.close()
            except Exception as error:
                self._drop(sink, f"while it was closed: {describe(error)}")

    def state_dict(self) -> dict[str, object]:
        """Return what a resumed run needs to continue: the layers, and the maps if they are on a shared scale."""
        scales = None if self.scales is None else self.scales.state_dict()
        return {"layers": self.layers if self._has_names else None, "scales": scales, "last": self._last_logged}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Continue a run from the result of `state_dict`. A state that cannot be read is skipped with a warning.

        Args:
            state: The state.
        """
        try:
            names, last, scales = state["layers"], state["last"], state["scales"]
            if self.scales is not None and isinstance(scales, dict):
                self.scales.load_state_dict(scales)
            if isinstance(names, list):
                self.layers, self._has_names = names, True
            self._last_logged = last if isinstance(last, int) else None
        except Exception as error:
            warn(f"seewhy: the state of the training maps cannot be restored: {describe(error)} They start again.")

    def set_default_sinks(self, makers: Sequence[Callable[[], Sink]]) -> None:
        """Use other sinks than the default folder, unless some were passed at construction.

        Args:
            makers: Functions that create the sinks. For one that raises an error, a warning is shown.
        """
        if self.sinks is not None or self.is_disabled:
            return
        self.sinks = []
        for make in makers:
            try:
                self.sinks.append(make())
            except Exception as error:
                warn(f"seewhy: maps are not logged to one of the loggers: {describe(error)}")
        if not self.sinks:
            self.disable("because no logger can be used.")

    def disable(self, reason: str) -> None:
        """Stop logging, and warn once. Training continues.

        Args:
            reason: Why, in one line.
        """
        if not self.is_disabled:
            self.is_disabled = True
            warn(f"seewhy: training maps are disabled {reason} Training continues.")

    # Internal

    def _take(self, step: int, module: torch.nn.Module) -> list[Snapshot]:
        with isolated(device_of(module)):
            e = self._explain(module)
            names = [name for name in e.layers if name != NETWORK]
            self.layers, self._has_names = (names, True) if names else (self.layers, False)
            return list(take_snapshots(e, self.images.names, step, self._backgrounds, has_classes=self.has_classes))

    def _explain(self, module: torch.nn.Module) -> Explanation:
        return explain(
            module,
            self.images.inputs(device_of(module), dtype_of(module)),
            methods=self.methods,
            layers=self.layers,
            targets=self.targets,
            grid=self.grid,
            multilabel=self.multilabel,
            labels=self.labels,
            preprocess=self.preprocess,
        )

    def _send(self, snapshots: list[Snapshot], step: int) -> bool:
        if self.sinks is None:
            self.sinks = as_sinks(DEFAULT_FOLDER)
        try:
            old = [] if self.scales is None else self.scales.add(snapshots)
            images = self._draw(snapshots)
        except Exception as error:
            self.disable(f"from step {step} on: {describe(error)}")
            return False
        for sink in list(self.sinks):
            try:
                sink.log(images, step)
            except Exception as error:
                self._drop(sink, f"from step {step} on: {describe(error)}")
        self._redraw(old)
        return not self.is_disabled

    def _redraw(self, snapshots: Sequence[Snapshot]) -> None:
        """Draw maps of earlier steps again, in the sinks that can replace images."""
        if not snapshots or self.scales is None:
            return
        for sink in [sink for sink in self.sinks or () if isinstance(sink, RedrawingSink)]:
            try:
                steps = by_step(snapshots)
                sink.replace({step: self._draw(steps[step]) for step in steps})
            except Exception as error:
                self._drop(sink, f"because images cannot be drawn again: {describe(error)}")

    def _draw(self, snapshots: Sequence[Snapshot]) -> list[LoggedImage]:
        maxima = {} if self.scales is None else self.scales.maxima
        with isolated(torch.device("cpu")):
            return [one.draw(self.style, self.side, maxima.get(one.name)) for one in snapshots]

    def _drop(self, sink: Sink, reason: str) -> None:
        """Stop logging to one sink, and warn once."""
        remaining = [one for one in self.sinks or () if one is not sink]
        if not remaining:
            self.disable(reason)
            return
        self.sinks = remaining
        warn(f"seewhy: {type(sink).__name__} is disabled {reason} Training and the other sinks continue.")
