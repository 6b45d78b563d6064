"""The main command: explain each image, write its folder, report images that failed, and continue with the others."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from seewhy import storage, terminal
from seewhy.cli.drawings import draw_all
from seewhy.cli.image_sources import Sources, print_failed_count, report_failure
from seewhy.cli.measurement_table import print_means
from seewhy.cli.output_checks import has_index, image_folders
from seewhy.cli.printing import compare_label, print_explanation
from seewhy.cli.run_options import (
    FEATURES_SHEET,
    METRICS_RECORD,
    METRICS_TABLE,
    DrawingOptions,
    MetricOptions,
    OutputOptions,
)
from seewhy.cli.termination import count_finished, uninterrupted
from seewhy.engine.inputs import NamedImage
from seewhy.engine.options import ModelOptions, Options, as_flags, command_for
from seewhy.engine.pipeline import Explainer
from seewhy.errors import ImageError, TargetError, one_line
from seewhy.explanation.answer import find_answer
from seewhy.explanation.report import has_page, make_failed_row, make_index_row
from seewhy.explanation.result import Explanation
from seewhy.explanation.selection import fields_for_targets
from seewhy.images.loading import load_image
from seewhy.models.loaded_model import LoadedModel
from seewhy.rendering.text import take_font_note
from seewhy.storage.paths import path_text
from seewhy.targets.names import as_number, find_class
from seewhy.viewer import IndexRow, build_index

if TYPE_CHECKING:
    from seewhy.trust.metrics.measurements import Measurements

ANNOUNCE_FROM = 100  # extra forward passes from which the cost is printed before the work starts
PATIENCE = 1.0  # seconds after which a bar is shown


@dataclass(eq=False)
class ImageJob:
    """One run of the main command over images. `run` returns the exit code."""

    explainer: Explainer
    drawing: DrawingOptions
    output: OutputOptions
    model_options: ModelOptions
    metrics: MetricOptions | None = None
    stdout: Console = field(default_factory=terminal.make_console)
    stderr: Console = field(default_factory=lambda: terminal.make_console(stderr=True))
    measured: list[Measurements] = field(default_factory=list)
    rows: list[IndexRow] = field(default_factory=list)  # of the index page
    done: int = 0
    failed: int = 0
    without_target: int = 0  # images in which the target does not exist

    @property
    def model(self) -> LoadedModel:
        return self.explainer.model

    @property
    def options(self) -> Options:
        return self.explainer.options

    def run(self, sources: Sources) -> int:
        """Explain every image and return the exit code: 0, 1 if some images failed, 2 if no image has the target.

        Errors that concern every image (an unknown class, layer or method) are raised. With several images, a target that
        one image does not have is a failure of that image only.
        """
        images, errors = sources.images, sources.errors
        if self.output.label is not None and self.model.labels is not None:
            find_class(as_number(self.output.label), self.model.labels, len(self.model.labels))
        folders = self.folders(images)
        for error in errors:
            self.report_failure(error.source, error.reason)
        count_finished(0)
        take_font_note()  # what other calls in this process drew
        with image_progress(len(images), self.output, self.stderr) as advance:
            for image in images:
                try:
                    self.explain(image, folders.get(image, self.output.out))
                    self.done += 1
                except ImageError as error:
                    self.report_failure(image, error.reason)
                except TargetError as error:
                    if len(images) == 1:
                        raise
                    self.without_target += 1
                    self.report_failure(image, str(error))
                advance()
        if len(self.measured) > 1 and self.output.prints_text:
            print_means(self.stdout, self.measured)
        self.write_index()
        if self.output.prints_text and (note := take_font_note()):
            self.stderr.print(f"note: {terminal.plain(note)}", style=terminal.FAINT, soft_wrap=True)
        if self.failed and self.failed + self.done > 1:
            print_failed_count(self.failed, self.failed + self.done)
        return 2 if self.without_target and not self.done else 1 if self.failed else 0

    def folders(self, images: Sequence[str]) -> dict[str, Path]:
        """Return the output folder of each image that exists."""
        return image_folders(self.output.out, images)

    def explain(self, image: str, folder: Path) -> None:
        """Explain one image, write its folder, and print the result."""
        source = open_stdin() if image == "-" else image
        pixels = load_image(source, max_pixels=self.output.max_pixels)
        name = "stdin" if image == "-" else path_text(image)
        with pass_progress(self.output, self.stderr) as progress:
            e = self.explainer.explain(NamedImage(name, pixels), progress=progress, command=self.command(image))
        if not self.output.no_check and not self.options.channels:
            e = self.check(e)
        # Without --targets, further classes are for the page only.
        main = replace(e, **fields_for_targets(e, e.main_targets))
        measured = None if self.metrics is None else self.measure(main, self.metrics)
        e = e if measured is None else measured.attached_to(e)
        files = draw_all(main, self.drawing, draw_features=bool(self.options.channels))
        is_page = has_page(e)
        if is_page and FEATURES_SHEET not in files:
            files[storage.REPORT] = self.page_of(e)
        if measured is not None:
            self.measured.append(measured)
            files[METRICS_TABLE] = measured.to_csv().encode()
            files[METRICS_RECORD] = storage.encode_marked_json(measured.to_dict())
        with uninterrupted():
            paths = e.save(folder, also=files)
            count_finished(1)
        label = compare_label(e, self.output.label)
        if self.output.json:
            record = {
                **main.to_dict(),
                "answer": find_answer(e).to_dict(),
                "label": label,
                "folder": str(folder),
                "files": list(map(str, paths)),
            }
            if measured is not None:
                record["metrics"] = measured.to_dict()
            print(terminal.encode_json(record), flush=True)
        elif not self.output.quiet:
            print_explanation(
                self.stdout, main, find_answer(e), name, folder, label=label, top=self.output.top,
                style=self.drawing.overlay_style, known_notes=self.model.notes, files=list(files), measured=measured,
                is_classic=self.drawing.is_classic,
            )  # fmt: skip
        if is_page:
            page_folder = folder.relative_to(self.output.out).as_posix()
            classic = self.drawing.is_classic
            self.rows.append(make_index_row(e, page_folder, self.drawing.overlay_style, classic=classic))

    def page_of(self, e: Explanation) -> bytes:
        """Return the page of one image."""
        return e.report(style=self.drawing.overlay_style, classic=self.drawing.is_classic).encode("ascii")

    def check(self, e: Explanation) -> Explanation:
        """Return the explanation with checks of its maps, or with a note if the model cannot be run on covered images."""
        from seewhy.trust import check

        with pass_progress(self.output, self.stderr, announces=False) as progress:
            try:
                return check(self.model, e, memory=self.options.memory, progress=progress)
            except Exception as error:  # model code may raise anything, and the maps are complete
                return replace(e, notes=(*e.notes, f"the maps were not checked: {one_line(error)}"))

    def measure(self, e: Explanation, metrics: MetricOptions) -> Measurements:
        """Return the metrics of all maps."""
        from seewhy.trust.metrics.evaluation import check_names, measure

        chosen, fillers = check_names(metrics.metrics, metrics.fillers)
        names = [metric.name for metric in chosen]
        with pass_progress(self.output, self.stderr, announces=False) as progress:
            return measure(self.model, e, names, fillers=fillers, memory=self.options.memory, progress=progress)

    def command(self, image: str) -> str:
        """Return the command that explains one image again with these settings."""
        channels = ["--channels", str(self.options.channels)] if self.options.channels else []
        return command_for(
            image,
            self.model.uri,
            as_flags(self.options, skip=["channels"]),
            as_flags(self.model_options, skip=["model", "num_classes", "device"]),
            channels,
            as_flags(self.drawing),
            as_flags(self.output, skip=["out", "top", "json", "quiet", "max_pixels"]),
            [] if self.metrics is None else as_flags(self.metrics),
            subcommand="features" if channels else "" if self.metrics is None else "trust",
        )

    def report_failure(self, source: str, reason: str) -> None:
        """Print why an image failed, and add it to the index page."""
        report_failure(source, reason, self.output)
        self.failed += 1
        self.rows.append(make_failed_row(path_text(source), reason))

    def write_index(self) -> None:
        """Write the page that lists all images of the run, if there are several."""
        if not self.done or not has_index(len(self.rows), self.options):
            return
        index = self.output.out / storage.INDEX
        page = build_index(self.rows, title=f"{len(self.rows)} images", model=self.model.uri)
        storage.write_file(index, page.encode("ascii"))
        if self.output.prints_text:
            self.stdout.print(f"\nAll images in a browser: [bold]{terminal.plain(str(index))}[/]", soft_wrap=True)


def open_stdin() -> BinaryIO:
    """Return standard input. Raises ImageError if it is closed (`<&-`)."""
    if sys.stdin is None or sys.stdin.closed:
        raise ImageError("stdin", "standard input is closed; send an image: seewhy - < photo.jpg")
    return sys.stdin.buffer


@contextmanager
def pass_progress(
    output: OutputOptions, stderr: Console, *, announces: bool = True
) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback for extra forward passes: it prints the cost of methods, then shows a bar in a terminal."""
    if not output.prints_text:
        yield None
        return
    columns = (TextColumn("forward passes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=stderr, transient=True)
    task = bar.add_task("", total=None)

    start = time.monotonic()

    def report(done: int, total: int) -> None:
        if done == 0 and total >= ANNOUNCE_FROM and announces:
            stderr.print(f"these methods need about {total:,} extra forward passes", style=terminal.FAINT)
        is_long = (announces and total >= ANNOUNCE_FROM) or time.monotonic() - start > PATIENCE
        if is_long and stderr.is_terminal and not bar.live.is_started:
            bar.start()
        if bar.live.is_started:
            bar.update(task, completed=min(done, total), total=total)

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def image_progress(count: int, output: OutputOptions, stderr: Console) -> Iterator[Callable[[], None]]:
    """Yield a callback that advances a bar on stderr, if there are several images and stderr is a terminal."""
    if count < 2 or output.quiet or not stderr.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task("", total=count)
        yield lambda: bar.advance(task)
