"""`Sink`: what receives the images of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image


@dataclass(frozen=True, eq=False)
class LoggedImage:
    """One map of one image at one step, as an image.

    Attributes:
        name: Name of the image; with several maps per image, followed by target, layer and method. A valid file name that is
            the same at each step.
        image: The overlay with its caption: RGB, of the same size at each step.
        caption: The caption as text.
    """

    name: str
    image: Image.Image
    caption: str


@runtime_checkable
class Sink(Protocol):
    """Receives images during training. An object with these two methods can be passed as `sinks=` of `TrainingMaps`.

    Example:
        >>> class Printer:
        ...     def log(self, images, step):
        ...         print(step, [image.name for image in images])
        ...
        ...     def close(self):
        ...         pass
        >>> isinstance(Printer(), Sink)
        True
    """

    def log(self, images: Sequence[LoggedImage], step: int) -> None:
        """Store the images of one step.

        Args:
            images: All images of the step.
            step: The number of the optimizer step. It increases, except after a training run was resumed.
        """

    def close(self) -> None:
        """Finish. The sink may be used again if the training continues."""


@runtime_checkable
class RedrawingSink(Protocol):
    """A sink whose earlier images can be replaced, because their scale has changed."""

    def replace(self, images: Mapping[int, Sequence[LoggedImage]]) -> None:
        """Replace images of earlier steps, by step."""
