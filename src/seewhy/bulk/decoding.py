"""Decode images ahead of time in worker processes. An image that crashes its process fails; the job continues."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.dataset import TRANSIENT_ERRNOS, Item
from seewhy.bulk.input_regions import Floats, from_boxes, from_mask, read_mask
from seewhy.errors import ImageError, one_line
from seewhy.images.loading import check_image_header, load_image
from seewhy.images.preprocess import Preprocess
from seewhy.images.resizing import ResizedCrop
from seewhy.images.view import View

MAX_BYTES = 1 << 29
AHEAD = 2  # batches
Tag = TypeVar("Tag")


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A decoded image, or the reason why it cannot be decoded.

    `inputs` is what the network takes, float32 (1, C, H, W), or what makes it: a `ResizedCrop`. `region` (H, W) says how much of each
    pixel of the input lies in the item's boxes or mask. `size` is of the file in bytes.
    """

    item: Item
    sha256: str | None = None
    size: int | None = None
    photo: tuple[int, int] | None = None
    view: View | None = None
    inputs: ResizedCrop | NDArray[np.float32] | None = None
    region: Floats | None = None
    error: str | None = None


def decode_image(item: Item, preprocess: Any, max_pixels: int) -> DecodedImage:
    """Read, decode and crop one image. A failure becomes the `error` of the result."""
    without_data = replace(item, data=None)
    if item.error is not None:
        return DecodedImage(without_data, error=item.error)
    decoded = DecodedImage(without_data)
    try:
        data = read_file(item)
        decoded = replace(decoded, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        check_image_header(data, max_pixels, item.id)
        image = load_image(data, max_pixels=max_pixels)
        photo = (image.shape[0], image.shape[1])
        decoded = replace(decoded, photo=photo)
        inputs, view = preprocess_image(preprocess, image)
        region = None
        if item.mask is not None:
            region = from_mask(read_mask(item.mask, item.mask_value, photo), view)
        elif item.boxes:
            region = from_boxes(item.boxes, view)
        return replace(decoded, view=view, inputs=inputs, region=region)
    except ImageError as error:
        return replace(decoded, error=error.reason)
    except OSError as error:
        if error.errno in TRANSIENT_ERRNOS:
            raise
        return replace(decoded, error=(error.strerror or str(error)).lower())
    except (Exception, SystemExit) as error:  # a user's own preprocessing may raise anything
        return replace(decoded, error=f"{type(error).__name__}: {one_line(error)}")


def end_with(parent: int) -> None:
    """In a reader process: end when the one that it reads for is gone, killed without a word, and not before.

    Ctrl-C reaches all processes of a terminal; the one in front ends its readers itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def read_file(item: Item) -> bytes:
    """Return the content of an image file. Opening a pipe or a device would block, so it is refused."""
    if item.data is not None:
        return item.data
    status = os.stat(item.path)
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(item.id, "is a folder, not an image")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(item.id, "is a pipe, socket or device, not a regular file")
    if status.st_size == 0:
        raise ImageError(item.id, "the file is empty")
    if status.st_size > MAX_BYTES:
        raise ImageError(item.id, f"the file is larger than {MAX_BYTES >> 20} MB")
    with open(item.path, "rb") as file:
        return file.read()


def preprocess_image(preprocess: Any, image: NDArray[np.uint8]) -> tuple[ResizedCrop | NDArray[np.float32], View]:
    """8-bit pixels where that is all a preprocessing does before it normalises (a quarter of the bytes, and no torch)."""
    if isinstance(preprocess, Preprocess):
        return preprocess.resize_and_crop(image)
    inputs, view = preprocess(image)
    return inputs.float().numpy(), view


class Reader:
    """Reads items in order, some ahead, in `workers` processes; 0 is one thread of this process.

    A process that dies takes what was in flight with it: those are read anew, one at a time, and the one that ends its
    process again has failed.
    """

    def __init__(self, preprocess: Any, *, workers: int, max_pixels: int) -> None:
        self.workers, self.settings = workers, (preprocess, max_pixels)
        self.pool: Executor | None = None

    def stop(self) -> None:
        """End the processes; the next item starts new ones."""
        if self.pool is not None:
            if self.workers:
                self.pool.shutdown(wait=False, kill_workers=True)  # type: ignore[call-arg]
            else:
                self.pool.shutdown(wait=False, cancel_futures=True)
            self.pool = None

    def submit(self, item: Item) -> Future[DecodedImage]:
        if self.pool is None:
            if self.workers:
                from loky import ProcessPoolExecutor  # needs no guard around a user's main module, and names its dead

                self.pool = ProcessPoolExecutor(
                    self.workers, timeout=None, initializer=end_with, initargs=(os.getpid(),)
                )
            else:
                self.pool = ThreadPoolExecutor(1)
        try:
            return self.pool.submit(decode_image, item, *self.settings)
        except BrokenExecutor as error:  # one in flight has just ended its process: who waits for this one hears of it
            refused: Future[DecodedImage] = Future()
            refused.set_exception(error)
            return refused

    def stream(self, items: Iterable[tuple[Tag, Item]], ahead: int) -> Iterator[tuple[Tag, DecodedImage]]:
        """Each item as it was read, in order, with the tag that it came with; at most `ahead` are held."""
        waiting: deque[tuple[Tag, Item, Future[DecodedImage]]] = deque()
        source = iter(items)
        while True:
            while len(waiting) < max(1, ahead) and (following := next(source, None)) is not None:
                waiting.append((*following, self.submit(following[1])))
            if not waiting:
                return
            tag, item, future = waiting[0]
            try:
                found = future.result()
            except BrokenExecutor:
                self.stop()
                found = self.alone(item)
                rest = [(tag, item) for tag, item, _ in list(waiting)[1:]]
                waiting = deque([waiting[0]])
                waiting += [(tag, item, self.submit(item)) for tag, item in rest]
            waiting.popleft()
            yield tag, found

    def alone(self, item: Item) -> DecodedImage:
        """Read one item with nothing else in flight: if a process dies now, it is this one's doing."""
        try:
            return self.submit(item).result()
        except BrokenExecutor:
            self.stop()
            return DecodedImage(replace(item, data=None), error="it crashed the process that decoded it")
