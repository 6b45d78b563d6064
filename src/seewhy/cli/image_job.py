"""The main command: explain each image, write its folder, report images that failed, and continue with the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from seewhy import storage, terminal
from seewhy.cli.drawings import FEATURES_SHEET, draw_all
from seewhy.cli.output_checks import check_outputs
from seewhy.cli.printing import compare_label, print_explanation
from seewhy.cli.run_options import DrawingOptions, OutputOptions
from seewhy.cli.termination import uninterrupted
from seewhy.engine.inputs import NamedImage
from seewhy.engine.options import ModelOptions, Options, as_flags, command_for
from seewhy.engine.pipeline import Explainer
from seewhy.errors import ImageError, TargetError
from seewhy.explanation.report import has_page, make_failed_row, make_index_row
from seewhy.images.discovery import describe_outputs, find_images, listing_error, split_regular
from seewhy.images.loading import load_image
from seewhy.models.loaded_model import LoadedModel
from seewhy.paths import output_paths, path_text
from seewhy.rendering.text import take_font_note
from seewhy.targets.names import as_number, find_class
from seewhy.viewer import IndexRow, build_index

ANNOUNCE_FROM = 100  # extra forward passes from which the cost is printed before the work starts


@dataclass(eq=False)
class ImageJob:
    """One run of the main command over images. `run` returns the exit code."""

    explainer: Explainer
    drawing: DrawingOptions
    output: OutputOptions
    model_options: ModelOptions
    stdout: Console = field(default_factory=terminal.make_console)
    stderr: Console = field(default_factory=lambda: terminal.make_console(stderr=True))
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

    def run(self, sources: Sequence[str]) -> int:
        """Explain every image and return the exit code: 0, 1 if some images failed, 2 if no image has the target.

        Errors that concern every image (an unknown class, layer or method) are raised. With several images, a target that
        one image does not have is a failure of that image only.
        """
        images, errors = self.find(sources)
        if self.output.label is not None and self.model.labels is not None:
            find_class(as_number(self.output.label), self.model.labels, len(self.model.labels))
        folders = self.folders(images)
        has_index = self.has_index(len(images) + len(errors))
        check_outputs(self.output.out, folders, self.options, self.model_options, self.model.uri, has_index=has_index)
        for error in errors:
            self.report_failure(error.source, error.reason)
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
        self.write_index()
        if self.output.prints_text and (note := take_font_note()):
            self.stderr.print(f"note: {terminal.plain(note)}", style=terminal.FAINT, soft_wrap=True)
        if self.failed and self.failed + self.done > 1:
            self.stderr.print(f"{self.failed} of {self.failed + self.done} images failed", style="red")
        return 2 if self.without_target and not self.done else 1 if self.failed else 0

    def find(self, sources: Sequence[str]) -> tuple[list[str], list[ImageError]]:
        """Return the image files that `sources` name, and an error for each folder without images and each pipe in a folder.

        Images in folders that seewhy wrote are skipped, so that a second `seewhy .` explains the same images.
        """
        images: list[str] = []
        errors: list[ImageError] = []
        outputs: list[str] = []

        def on_error(error: OSError) -> None:
            errors.append(listing_error(error))

        for source in sources:
            try:
                found = find_images([source], on_error, outputs.append)
                if os.path.isdir(source):
                    found, skipped = split_regular(found)
                    errors += skipped
                images += found
            except ImageError as error:
                errors.append(error)
        if outputs and not self.output.quiet:
            self.stderr.print(terminal.plain(describe_outputs(outputs)), style=terminal.FAINT, soft_wrap=True)
        return list(dict.fromkeys(images)), errors

    def folders(self, images: Sequence[str]) -> dict[str, Path]:
        """Return the output folder of each image that exists."""
        existing = [image for image in images if image == "-" or os.path.exists(image)]
        return dict(zip(existing, output_paths(self.output.out, existing), strict=True))

    def explain(self, image: str, folder: Path) -> None:
        """Explain one image, write its folder, and print the result."""
        source = open_stdin() if image == "-" else image
        pixels = load_image(source, max_pixels=self.output.max_pixels)
        name = "stdin" if image == "-" else path_text(image)
        with pass_progress(self.output, self.stderr) as progress:
            e = self.explainer.explain(NamedImage(name, pixels), progress=progress, command=self.command(image))
        files = draw_all(e, self.drawing, draw_features=bool(self.options.channels))
        is_page = has_page(e)
        if is_page and FEATURES_SHEET not in files:
            files[storage.REPORT] = e.report(style=self.drawing.overlay_style).encode("ascii")
        with uninterrupted():
            paths = e.save(folder, also=files)
        label = compare_label(e, self.output.label)
        if self.output.json:
            record = {**e.to_dict(), "label": label, "folder": str(folder), "files": list(map(str, paths))}
            print(terminal.encode_json(record), flush=True)
        elif not self.output.quiet:
            print_explanation(
                self.stdout, e, name, folder, label=label, top=self.output.top, style=self.drawing.overlay_style,
                known_notes=self.model.notes, files=list(files),
            )  # fmt: skip
        if is_page:
            page_folder = folder.relative_to(self.output.out).as_posix()
            self.rows.append(make_index_row(e, page_folder, self.drawing.overlay_style))

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
            subcommand="features" if channels else "",
        )

    def report_failure(self, source: str, reason: str) -> None:
        """Print why an image failed, and add it to the index page."""
        name = path_text(source)
        if self.output.json:
            print(terminal.encode_json({"image": name, "error": reason}), flush=True)
        self.stderr.print(f"[red]{terminal.plain(name)}[/]: {terminal.plain(reason)}", soft_wrap=True)
        self.failed += 1
        self.rows.append(make_failed_row(name, reason))

    def has_index(self, count: int) -> bool:
        """Return True if a run over `count` images writes the page that lists them."""
        return count > 1 and not self.options.channels

    def write_index(self) -> None:
        """Write the page that lists all images of the run, if there are several."""
        if not self.done or not self.has_index(len(self.rows)):
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
def pass_progress(output: OutputOptions, stderr: Console) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback for methods that run extra forward passes: it prints the cost, then shows a bar in a terminal."""
    if not output.prints_text:
        yield None
        return
    columns = (TextColumn("forward passes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=stderr, transient=True)
    task = bar.add_task("", total=None)

    def report(done: int, total: int) -> None:
        if done == 0 and total >= ANNOUNCE_FROM:
            stderr.print(f"these methods need about {total:,} extra forward passes", style=terminal.FAINT)
            if stderr.is_terminal:
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
