"""`FolderSink`: one PNG per image and step, and an animation per image."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from seewhy import storage
from seewhy.errors import OptionError
from seewhy.integrations.sinks.animation import PngParts, encode_animation, read_png, spread
from seewhy.integrations.sinks.base import LoggedImage
from seewhy.storage.paths import check_named, check_null

FRAME = re.compile(r"step_(\d{8,})\.png")
LEVEL = 3  # of the compression: 4.5 ms instead of 11.5 ms per frame, for files that are 4 % larger
LAST = 1500  # milliseconds that the last frame is shown


class FolderSink:
    """Writes images into a folder: `NAME/step_00000500.png` for each step, and `NAME.png`, an animation over all steps.

    All files are complete at any time, also if training is interrupted. The first images of a training run replace those of
    the same and later steps: a run that was resumed continues the animation, and a run that starts again begins a new one.
    The animation is an animated PNG, which all current browsers show.

    Args:
        folder: Where to write; created with the first images.
        milliseconds: How long each frame of the animation is shown; 20 to 60,000.
        max_frames: Maximum number of frames of an animation, at least 2. If there are more steps, it shows evenly spread ones,
            with the first and the last. All steps remain in the folder.

    Raises:
        OptionError: A number is out of its range.
        UsageError: The folder has an empty name.

    Example:
        >>> FolderSink("maps").folder.name
        'maps'
    """

    def __init__(self, folder: str | os.PathLike[str], *, milliseconds: int = 400, max_frames: int = 60) -> None:
        check_named(folder)
        check_null(Path(folder))
        if not isinstance(milliseconds, int) or not 20 <= milliseconds <= 60_000:
            raise OptionError("milliseconds", milliseconds, "pass the time per frame, 20 to 60000.")
        if not isinstance(max_frames, int) or max_frames < 2:
            raise OptionError("max_frames", max_frames, "pass a number of frames, at least 2.")
        self.folder = Path(folder)
        self.milliseconds, self.max_frames = milliseconds, max_frames
        self._last: int | None = None

    def log(self, images: Sequence[LoggedImage], step: int) -> None:
        """Write the images of one step, then the animations.

        Args:
            images: All images of the step.
            step: Number of the step, at least 0.

        Raises:
            UsageError: A file cannot be written, or exists and seewhy did not write it.
        """
        if self._last is None or step <= self._last:  # a new run, or the training was restarted
            for image in images:
                self._remove_from(image.name, step)
        self._last = step
        self.replace({step: images})

    def replace(self, images: Mapping[int, Sequence[LoggedImage]]) -> None:
        """Write the images of several steps, then the animations.

        Args:
            images: The images of each step.

        Raises:
            UsageError: A file cannot be written, or exists and seewhy did not write it.
        """
        for step, items in images.items():
            for item in items:
                path = self.folder / item.name / f"step_{step:08d}.png"
                storage.write_file(path, storage.encode_png(item.image, LEVEL), root=self.folder)
        for name in dict.fromkeys(item.name for items in images.values() for item in items):
            self._write_animation(name)

    def close(self) -> None:
        """Do nothing: all files are complete already."""

    def _steps(self, name: str) -> list[tuple[int, Path]]:
        """Return the steps of an image with their files, in order."""
        folder = self.folder / name
        paths = folder.iterdir() if folder.is_dir() else ()
        return sorted((int(match[1]), path) for path in paths if (match := FRAME.fullmatch(path.name)))

    def _remove_from(self, name: str, step: int) -> None:
        """Delete the frames of an earlier run from `step` on."""
        for number, path in self._steps(name):
            if number >= step and storage.is_own(path):
                with storage.write_errors(path):
                    path.unlink(missing_ok=True)

    def _write_animation(self, name: str) -> None:
        paths = [path for _, path in self._steps(name)]
        frames = [read_frame(paths[index]) for index in spread(len(paths), self.max_frames)]
        readable = [frame for frame in frames if frame is not None]
        same = [frame for frame in readable if frame.header == readable[-1].header]  # the size may have changed since
        if same:
            durations = [self.milliseconds] * (len(same) - 1) + [max(LAST, self.milliseconds)]
            storage.write_file(self.folder / f"{name}.png", encode_animation(same, durations), root=self.folder)


def read_frame(path: Path) -> PngParts | None:
    """Return the parts of a frame; None if it is damaged, or seewhy did not write it."""
    try:
        return read_png(path.read_bytes()) if storage.is_own(path) else None
    except OSError:
        return None
