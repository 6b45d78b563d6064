"""The images of a command: which files its arguments name, and whether any of them can be read. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from seewhy import terminal
from seewhy.cli.run_options import OutputOptions
from seewhy.errors import ImageError, UsageError
from seewhy.images.discovery import describe_outputs, find_images, listing_error, split_regular
from seewhy.images.loading import check_image
from seewhy.storage.paths import path_text

MAX_CHECKED = 16  # images whose headers are read before the model is loaded


@dataclass(frozen=True)
class Sources:
    """The image files that arguments name, and an error for each folder without images and each pipe in a folder."""

    images: list[str]
    errors: list[ImageError]

    @property
    def is_empty(self) -> bool:
        """True if only folders were given, and they have no images."""
        return not self.images


def find_sources(arguments: Sequence[str], output: OutputOptions) -> Sources:
    """Return the images that `arguments` name.

    Images in folders that seewhy wrote are skipped, so that a second `seewhy .` explains the same images.
    """
    images: list[str] = []
    errors: list[ImageError] = []
    outputs: list[str] = []

    def on_error(error: OSError) -> None:
        errors.append(listing_error(error))

    for argument in arguments:
        try:
            found = find_images([argument], on_error, outputs.append)
            if os.path.isdir(argument):
                found, skipped = split_regular(found)
                errors += skipped
            images += found
        except ImageError as error:
            errors.append(error)
    if outputs and not output.quiet:
        text = terminal.plain(describe_outputs(outputs))
        terminal.make_console(stderr=True).print(text, style=terminal.FAINT, soft_wrap=True)
    return Sources(list(dict.fromkeys(images)), errors)


def check_sources(sources: Sources, output: OutputOptions) -> int | None:
    """Print why no image can be read, and return exit code 1; None if one may be readable.

    Raises UsageError if there are no images.

    Called before the model is loaded, which takes seconds or a download. The headers of a few images are read, of many none.
    Standard input and pipes can be read only once, so they are not checked here.
    """
    errors = []
    for image in sources.images:
        if image == "-" or len(sources.images) > MAX_CHECKED or (os.path.exists(image) and not os.path.isfile(image)):
            return None
        try:
            check_image(image, output.max_pixels)
        except ImageError as error:
            errors.append(error)
        else:
            return None
    failures = [*sources.errors, *errors]
    if sources.is_empty:
        for failure in failures if output.json else ():
            print_failure(failure.source, failure.reason)
        others = f"; {len(failures) - 1} more without images" if len(failures) > 1 else ""
        raise UsageError(f"{failures[0]}{others}")
    for failure in failures:
        report_failure(failure.source, failure.reason, output)
    if len(failures) > 1:
        print_failed_count(len(failures), len(failures))
    return 1


def print_failure(source: str, reason: str) -> None:
    """Print why an image failed as JSON."""
    print(terminal.encode_json({"image": path_text(source), "error": reason}), flush=True)


def report_failure(source: str, reason: str, output: OutputOptions) -> None:
    """Print why an image failed."""
    if output.json:
        print_failure(source, reason)
    text = f"[red]{terminal.plain(path_text(source))}[/]: {terminal.plain(reason)}"
    terminal.make_console(stderr=True).print(text, soft_wrap=True)


def print_failed_count(failed: int, count: int) -> None:
    terminal.make_console(stderr=True).print(f"{failed} of {count} images failed", style="red")
