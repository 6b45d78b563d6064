"""What the commands that explain images have in common: checks, loading, and the job."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from seewhy.cli.choose import check_model
from seewhy.cli.exits import print_status
from seewhy.cli.flags import from_stdin
from seewhy.cli.freed_memory import keep_freed_memory
from seewhy.cli.garbage_collection import paused_collection
from seewhy.cli.image_sources import check_sources, find_sources
from seewhy.cli.layer_hints import runnable_hints
from seewhy.cli.output_checks import check_outputs, has_index, image_folders
from seewhy.cli.run_options import DrawingOptions, MetricOptions, OutputOptions
from seewhy.engine.options import ModelOptions, Options
from seewhy.trust.choices.choice_record import ChoiceRecord

OTHER_CLASSES = 2  # that the page compares with the predicted class


def explain_images(
    images: Sequence[str],
    options: Options,
    model: ModelOptions,
    drawing: DrawingOptions,
    output: OutputOptions,
    metrics: MetricOptions | None = None,
    choice: ChoiceRecord | None = None,
) -> int:
    """Check everything that needs no model, load it, explain the images, and return the exit code.

    With `metrics`, the maps are also measured. `choice` was applied to the options, and is compared with the model.
    """
    options = dataclasses.replace(
        options,
        layers=options.layers or ("suggested" if options.selects_group else "every",),
        fit=drawing.default_fit(options.fit),
        include_suggested=not options.channels,
        other_classes=0 if options.channels else OTHER_CLASSES,
    )
    sources = find_sources(from_stdin(images), output)
    if (code := check_sources(sources, output)) is not None:
        return code
    folders, count = image_folders(output.out, sources.images), len(sources.images) + len(sources.errors)
    check_outputs(
        output.out, folders, options, model, has_index=has_index(count, options), measures=metrics is not None
    )
    keep_freed_memory()
    with paused_collection():
        from seewhy.cli.image_job import ImageJob
        from seewhy.engine.option_checks import check_options
        from seewhy.engine.pipeline import Explainer
        from seewhy.fast.prepared import as_prepared
        from seewhy.models.loading import load_model

    check_options(options)
    if metrics is not None:
        from seewhy.trust.metrics.evaluation import check_names

        check_names(metrics.metrics, metrics.fillers)
    loaded = load_model(
        model.uri, labels=model.labels, device=model.device, log=print_status, allow_code=model.allow_code
    )
    if choice is not None:
        check_model(choice, loaded.uri, loaded.weights_hash)
    fast = options.fast or ("exact" if count > 1 or metrics is not None else "off")
    explainer = Explainer(as_prepared(loaded, fast), options)
    if output.prints_text:
        for note in explainer.model.notes:
            print_status(note)
    with runnable_hints(model):
        return ImageJob(explainer, drawing, output, model, metrics).run(sources)
