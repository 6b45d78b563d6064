"""Decode images ahead of time in worker processes. An image that crashes its process fails; the job continues."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from seewhy.bulk.child_processes import SAFE_PATH, blocked_signals, safe_path, shared_signals
from seewhy.bulk.dataset import TRANSIENT_ERRNOS, Item
from seewhy.bulk.input_regions import Floats, from_boxes, from_mask, read_mask
from seewhy.errors import ImageError, one_line, os_error_reason
from seewhy.images.loading import check_image_header, load_image
from seewhy.images.preprocess import Preprocess
from seewhy.images.resizing import ResizedCrop
from seewhy.images.view import View
from seewhy.models.permitted_code import permitted_folders
from seewhy.terminal.streams import replace_streams

MAX_BYTES = 1 << 29
AHEAD = 2  # batches
Tag = TypeVar("Tag")


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A decoded image, or the reason why it cannot be decoded.

    `inputs` is the model's input, float32 (1, C, H, W), or a `ResizedCrop` from which it is computed. `region` (H, W) is the
    fraction of each input pixel inside the item's boxes or mask. `photo` is (height, width), `size` the size of the file in
    bytes.
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
        return replace(decoded, error=os_error_reason(error))
    except (Exception, SystemExit) as error:  # preprocessing by the user may raise any exception
        name, message = type(error).__name__, one_line(error)
        return replace(decoded, error=name if message == name else f"{name}: {message}")


def end_with(parent: int, folders: Sequence[str] = ()) -> None:
    """Initialize a decoder process: end when its parent has ended, and ignore signals.

    Ctrl-C reaches all processes of a terminal, and a scheduler's SIGTERM all processes of a job; the parent ends its decoders
    after it has handled it. Modules of the user's own preprocessing are imported from `folders`.
    """
    sys.path += folders
    for number in shared_signals():
        signal.signal(number, signal.SIG_IGN)
    replace_streams()

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
    """Return the model's input and its view. `Preprocess` is run up to the 8-bit crop: a quarter of the bytes, and no torch."""
    if isinstance(preprocess, Preprocess):
        return preprocess.resize_and_crop(image)
    inputs, view = preprocess(image)
    return inputs.float().numpy(), view


class Reader:
    """Decodes items in order and ahead of time in `workers` processes, or in a thread if `workers` is 0.

    A crashed process breaks the pool, and all images in flight are lost. The oldest one is decoded again on its own: if it
    crashes the new process, it fails. The others are submitted again.
    """

    def __init__(self, preprocess: Any, *, workers: int, max_pixels: int) -> None:
        self.workers, self.settings = workers, (preprocess, max_pixels)
        self.pool: Executor | None = None

    def stop(self) -> None:
        """End the processes. The next item starts new ones."""
        if self.pool is not None:
            if self.workers:
                self.pool.shutdown(wait=False, kill_workers=True)  # type: ignore[call-arg]
            else:
                self.pool.shutdown(wait=False, cancel_futures=True)
            self.pool = None

    def submit(self, item: Item) -> Future[DecodedImage]:
        if self.pool is None:
            if self.workers:
                from loky import (
                    ProcessPoolExecutor,
                )  # unlike multiprocessing, needs no `if __name__ == "__main__"` guard

                with safe_path(), blocked_signals():  # for resource trackers, which inherit both
                    self.pool = ProcessPoolExecutor(
                        self.workers,
                        timeout=None,
                        initializer=end_with,
                        initargs=(os.getpid(), tuple(permitted_folders)),
                        env={SAFE_PATH: "1"},
                    )
            else:
                self.pool = ThreadPoolExecutor(1)
        try:
            with safe_path(), blocked_signals():  # the first call starts the processes
                return self.pool.submit(decode_image, item, *self.settings)
        except BrokenExecutor as error:  # the pool broke since the last result; `stream` handles it
            refused: Future[DecodedImage] = Future()
            refused.set_exception(error)
            return refused

    def stream(self, items: Iterable[tuple[Tag, Item]], ahead: int) -> Iterator[tuple[Tag, DecodedImage]]:
        """Yield each decoded item with its tag, in order. At most `ahead` items are in flight."""
        in_flight: deque[tuple[Tag, Item, Future[DecodedImage]]] = deque()
        source = iter(items)
        while True:
            while len(in_flight) < max(1, ahead) and (tagged := next(source, None)) is not None:
                in_flight.append((*tagged, self.submit(tagged[1])))
            if not in_flight:
                return
            tag, item, future = in_flight[0]
            try:
                image = future.result()
            except BrokenExecutor:
                self.stop()
                image = self.decode_alone(item)
                others = [(tag, item) for tag, item, _ in list(in_flight)[1:]]
                in_flight = deque([in_flight[0]])
                in_flight += [(tag, item, self.submit(item)) for tag, item in others]
            in_flight.popleft()
            yield tag, image

    def decode_alone(self, item: Item) -> DecodedImage:
        """Decode one item with nothing else in flight: if the process crashes, this item is the cause."""
        try:
            return self.submit(item).result()
        except BrokenExecutor:
            self.stop()
            return DecodedImage(replace(item, data=None), error="it crashed the process that decoded it")
