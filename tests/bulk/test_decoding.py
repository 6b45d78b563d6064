"""Decoding images one by one and ahead of time: damaged files, special files, and preprocessing that fails or crashes."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seewhy.bulk.dataset import Item
from seewhy.bulk.decoding import MAX_BYTES, DecodedImage, Reader, decode_image
from seewhy.bulk.input_regions import from_boxes, from_mask
from seewhy.images.loading import load_image
from seewhy.images.preprocess import Preprocess
from seewhy.images.resizing import ResizedCrop
from seewhy.images.view import View

PREPROCESS = Preprocess((16, 24), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 20)
LIMIT = 10_000


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def put(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def decode(path: str | Path, preprocess: Any = PREPROCESS, **fields: Any) -> DecodedImage:
    return decode_image(Item("name", str(path), **fields), preprocess, LIMIT)


# One image


def test_fields_of_a_decoded_image(tmp_path: Path) -> None:
    content = encoded(random_image(30, 50))
    decoded = decode(put(tmp_path / "a.png", content), label="7")
    assert decoded.error is None and decoded.region is None
    assert (decoded.item.id, decoded.item.label) == ("name", "7")
    assert (decoded.sha256, decoded.size, decoded.photo) == (
        hashlib.sha256(content).hexdigest(),
        len(content),
        (30, 50),
    )
    inputs, view = PREPROCESS(random_image(30, 50))
    assert decoded.view == view and isinstance(decoded.inputs, ResizedCrop)
    assert torch.equal(PREPROCESS.to_batch([decoded.inputs]), inputs)


def test_image_from_a_tar_file_drops_its_bytes() -> None:
    content = encoded(random_image(30, 50))
    decoded = decode("x.tar/a.png", data=content)
    assert decoded.error is None and decoded.size == len(content) and decoded.item.data is None
    assert decode("x.tar/a.png", data=b"no image").item.data is None
    assert "empty" in str(decode("x.tar/a.png", data=b"").error)


def test_exif_orientation_applies_to_size_view_and_region(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = put(tmp_path / "a.jpg", encoded(random_image(30, 50), "JPEG", exif=exif))
    mask = np.zeros((50, 30), np.uint8)
    mask[10:20] = 1
    decoded = decode(path, mask=put(tmp_path / "m.png", encoded(mask)))
    assert decoded.photo == (50, 30) and decoded.view is not None and decoded.view.photo_size == (50, 30)
    assert decoded.error is None and decoded.region is not None
    np.testing.assert_array_equal(decoded.region, from_mask(mask > 0, decoded.view))


def test_regions(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(random_image(30, 50)))
    mask = put(tmp_path / "m.png", encoded(np.arange(1500, dtype=np.uint8).reshape(30, 50) % 3))
    view = PREPROCESS(random_image(30, 50))[1]
    boxes = ((1.0, 2.0, 30.5, 20.0), (20.0, 10.0, 80.0, 90.0))
    np.testing.assert_array_equal(decode(path, boxes=boxes).region, from_boxes(boxes, view))
    levels = load_image(mask)[..., 0]
    by_value = decode(path, boxes=boxes, mask=mask, mask_value=2).region  # a mask takes precedence over boxes
    np.testing.assert_array_equal(by_value, from_mask(levels == 2, view))
    np.testing.assert_array_equal(decode(path, mask=mask).region, from_mask(levels != 0, view))
    assert decode(path, boxes=()).region is None and decode(path, mask_value=2).region is None


def test_error_of_the_item_is_kept(tmp_path: Path) -> None:
    decoded = decode(tmp_path / "none.png", error="no such row", data=b"x")
    assert decoded.error == "no such row" and decoded.item.data is None and decoded.sha256 is None


def test_unreadable_images(tmp_path: Path) -> None:
    good = encoded(random_image(40, 60))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no disk space
    for name, content in {
        "empty.png": b"", "text.jpg": b"no image at all", "cut.png": good[: len(good) // 2], "head.png": good[:20],
        "cut.jpg": encoded(random_image(40, 60), "JPEG")[:900], "huge.png": encoded(random_image(101, 100)),
    }.items():  # fmt: skip
        put(tmp_path / name, content)
    reasons = {
        "empty.png": "the file is empty", "text.jpg": "not an image that seewhy can read", "cut.png": "corrupt or truncated",
        "head.png": "corrupt", "cut.jpg": "corrupt or truncated", "huge.png": "over the limit of 10,000",
        "pipe.png": "is a pipe, socket or device, not a regular file", "folder.png": "is a folder, not an image",
        "none.png": "no such file", "loop.png": "too many levels of symbolic links", "gone.png": "no such file",
        "large.png": "the file is larger than 512 MB", "nul\0.png": "null",
    }  # fmt: skip
    for name, reason in reasons.items():
        decoded = decode(f"{tmp_path}/{name}")
        assert decoded.error is not None and reason in decoded.error and "\n" not in decoded.error, (
            name,
            decoded.error,
        )
        assert decoded.inputs is None and decoded.view is None and decoded.item.id == "name"
    huge = decode(tmp_path / "huge.png")  # fields determined before the error are kept
    assert huge.sha256 is not None and huge.size == os.path.getsize(tmp_path / "huge.png") and huge.photo is None
    assert decode("/dev/zero").error == "is a pipe, socket or device, not a regular file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_image_without_read_permission(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(random_image(30, 50)))
    os.chmod(path, 0)
    assert decode(path).error == "permission denied"


def test_permission_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "stat", refuse)
    assert decode("a.png").error == "permission denied"


def test_unusable_masks_fail_their_image(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(random_image(30, 50)))
    os.mkfifo(tmp_path / "pipe.png")  # opening it would block
    put(tmp_path / "small.png", encoded(np.ones((30, 49), np.uint8)))
    put(tmp_path / "broken.png", encoded(np.ones((30, 50), np.uint8))[:50])
    reasons = {
        "none.png": "no such file",
        "small.png": "is 49 x 30, but the photo is 50 x 30",
        "broken.png": "corrupt",
        "pipe.png": "not a regular file",
    }
    for name, reason in reasons.items():
        decoded = decode(path, mask=f"{tmp_path}/{name}")
        assert decoded.error and f"the mask {tmp_path}/{name}" in decoded.error and reason in decoded.error
        assert decoded.photo == (30, 50) and decoded.inputs is None


def test_image_too_thin_for_a_crop(tmp_path: Path) -> None:
    wide = Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3, "bilinear", 8000)
    decoded = decode(put(tmp_path / "a.png", encoded(random_image(1, 4000))), wide)
    assert decoded.error and "too thin to crop" in decoded.error


# Preprocessing by the user


def custom_preprocess(image: Any) -> tuple[torch.Tensor, View]:
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    return tensor[..., :8, :8], View((image.shape[0], image.shape[1]), (8, 8), (0, 0, 8, 8))


def test_custom_preprocessing(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(random_image(30, 50)))
    decoded = decode(path, custom_preprocess, boxes=((0, 0, 4, 8),))
    assert isinstance(decoded.inputs, np.ndarray) and decoded.inputs.dtype == np.float32
    np.testing.assert_array_equal(decoded.inputs, custom_preprocess(random_image(30, 50))[0].float())
    assert decoded.view == View((30, 50), (8, 8), (0, 0, 8, 8)) and decoded.region is not None
    assert decoded.region.sum() == 32


def test_preprocessing_that_raises(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(random_image(30, 50)))

    def raising(error: BaseException) -> Any:
        def call(image: Any) -> Any:
            raise error

        return call

    assert decode(path, raising(ValueError("unusable\nshape"))).error == "ValueError: unusable shape"
    assert decode(path, raising(RuntimeError())).error == "RuntimeError"
    assert decode(path, raising(MemoryError())).error == "MemoryError"
    assert decode(path, raising(OSError(28, "No space left on device"))).error == "no space left on device"
    assert "KeyError" in str(decode(path, lambda image: {}["x"]).error)
    for nonsense in (lambda image: None, lambda image: torch.zeros(1), lambda image: (image, None)):
        decoded = decode(path, nonsense)
        assert decoded.error and decoded.inputs is None and decoded.photo == (30, 50)


# Decoding ahead of time


def make_crashing_preprocess() -> Any:
    """Return a preprocessing that ends its process for images of width 13 and raises for width 14.

    A function defined inside a function is pickled by value, so the decoder process does not import this file or torch.
    """

    class Tensor:
        def __init__(self, value: float) -> None:
            self.value = value

        def float(self) -> Any:
            return self

        def numpy(self) -> Any:
            return np.full((1, 3, 4, 4), self.value, np.float32)

    def crashing(image: Any) -> Any:
        if image.shape[1] == 13:
            os._exit(3)
        if image.shape[1] == 14:
            raise ValueError("fourteen")
        return Tensor(image.shape[1]), View(image.shape[:2], (4, 4), (0.0, 0.0, 4.0, 4.0))

    return crashing


CRASHING = make_crashing_preprocess()


def tagged_items(folder: Path, widths: list[int]) -> list[tuple[int, Item]]:
    """Return tagged items, one per image width; 0 is a file that is not an image."""
    paths = [
        put(folder / f"{place}.png", encoded(random_image(10, width)) if width else b"none")
        for place, width in enumerate(widths)
    ]
    return [(place, Item(f"{place}", path)) for place, path in enumerate(paths)]


@pytest.fixture
def make_reader() -> Iterator[Any]:
    readers: list[Reader] = []

    def make(preprocess: Any, workers: int) -> Reader:
        readers.append(Reader(preprocess, workers=workers, max_pixels=LIMIT))
        return readers[-1]

    yield make
    for reader in readers:
        reader.stop()


def widths_of(decoded: list[tuple[int, DecodedImage]]) -> list[float | str]:
    """Return the width or the error of each image."""
    return [image.error or float(np.asarray(image.inputs).mean()) for _, image in decoded]


@pytest.mark.parametrize("workers", [0, 2])
def test_order_and_tags_are_kept(workers: int, tmp_path: Path, make_reader: Any) -> None:
    widths = [20, 30, 14, 40, 0, 50, 60, 70, 80]
    decoded = list(make_reader(CRASHING, workers).stream(tagged_items(tmp_path, widths), 4))
    assert [tag for tag, _ in decoded] == list(range(9)) and [image.item.id for _, image in decoded] == list(
        "012345678"
    )
    results = widths_of(decoded)
    assert results[2] == "ValueError: fourteen" and "not an image" in str(results[4])
    assert [results[n] for n in (0, 1, 3, 5, 6, 7, 8)] == [20, 30, 40, 50, 60, 70, 80]


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("workers", [0, 1])
def test_number_of_images_ahead_is_limited(workers: int, ahead: int, tmp_path: Path, make_reader: Any) -> None:
    requested = 0

    def source() -> Iterator[tuple[int, Item]]:
        nonlocal requested
        for one in items:
            requested += 1
            yield one

    items = tagged_items(tmp_path, [20] * 7)
    held = []
    for index, _ in enumerate(make_reader(CRASHING, workers).stream(source(), ahead)):
        held.append(requested - index)  # including this one
    assert max(held) == max(1, ahead) and len(held) == 7


@pytest.mark.parametrize(
    "widths", [[20, 30, 40, 13], [13, 20], [20, 13, 14, 0, 13, 30, 40]], ids=["last", "first", "two"]
)
def test_only_the_image_that_crashes_its_process_fails(widths: list[int], tmp_path: Path, make_reader: Any) -> None:
    decoded = list(make_reader(CRASHING, 2).stream(tagged_items(tmp_path, widths), 4))
    assert [tag for tag, _ in decoded] == list(range(len(widths)))
    expected = {13: "it crashed the process that decoded it", 14: "ValueError: fourteen", 0: None}
    for width, results in zip(widths, widths_of(decoded), strict=True):
        expected_result = expected.get(width, float(width))
        assert results == expected_result if expected_result is not None else "not an image" in str(results)
    for _, one in decoded:
        assert one.item.data is None


class BrokenPool(Executor):
    """A pool that broke between two images: `submit` raises."""

    def submit(self, *_: Any, **__: Any) -> Future[Any]:  # type: ignore[override]
        raise BrokenExecutor("a process ended")

    def shutdown(self, *_: Any, **__: Any) -> None: ...


def test_pool_that_broke_between_two_images(tmp_path: Path, make_reader: Any) -> None:
    reader = make_reader(CRASHING, 0)
    reader.pool = BrokenPool()
    assert widths_of(list(reader.stream(tagged_items(tmp_path, [20, 30, 40]), 2))) == [20, 30, 40]


def test_reader_restarts_after_stop(tmp_path: Path, make_reader: Any) -> None:
    for workers in (0, 1):
        reader = make_reader(CRASHING, workers)
        reader.stop()  # nothing to stop
        stream = reader.stream(tagged_items(tmp_path, [20, 30, 40]), 2)
        assert next(stream)[1].error is None
        stream.close()
        reader.stop()
        assert reader.pool is None
        assert widths_of(list(reader.stream(tagged_items(tmp_path, [20, 30]), 2))) == [20, 30]


def test_zero_workers_decode_in_a_thread(tmp_path: Path, make_reader: Any) -> None:
    threads = set()

    def recording(image: Any) -> Any:
        threads.add((os.getpid(), threading.get_ident()))
        return CRASHING(image)

    assert widths_of(list(make_reader(recording, 0).stream(tagged_items(tmp_path, [20, 30, 40]), 2))) == [20, 30, 40]
    ((process, thread),) = threads
    assert process == os.getpid() and thread != threading.get_ident()


def test_preprocessing_that_pickle_rejects_runs_in_a_process(tmp_path: Path, make_reader: Any) -> None:
    def local_function(image: Any) -> Any:
        return CRASHING(np.zeros((1, os.getpid())))

    decoded = list(make_reader(local_function, 1).stream(tagged_items(tmp_path, [20, 30]), 2))
    pids = {float(image.inputs.max()) for _, image in decoded if isinstance(image.inputs, np.ndarray)}
    assert len(pids) == 1 and float(np.float32(os.getpid())) not in pids


def test_annotations_and_bytes_are_sent_to_a_process(tmp_path: Path, make_reader: Any) -> None:
    content = encoded(random_image(30, 50))
    item = Item("x.tar/a", "x.tar/a.png", data=content, boxes=((1, 2, 30, 20),), label="cat")
    ((_, decoded),) = make_reader(PREPROCESS, 1).stream([(0, item)], 2)
    here = decode_image(item, PREPROCESS, LIMIT)
    assert (
        isinstance(decoded.inputs, ResizedCrop) and isinstance(here.inputs, ResizedCrop) and decoded.item == here.item
    )
    np.testing.assert_array_equal(decoded.inputs.pixels, here.inputs.pixels)
    np.testing.assert_array_equal(decoded.region, here.region)
    assert (decoded.view, decoded.sha256, decoded.inputs.corner) == (here.view, here.sha256, here.inputs.corner)


# Crops and batches


GRAY: dict[str, Any] = {"mean": (0.45,), "std": (0.22,)}
COLOR: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
WAYS = [
    Preprocess((32, 48), interpolation=filter_, resize=resize, rule=rule, fit=fit, channels=channels, **numbers)
    for numbers in (GRAY, COLOR)
    for channels in ("RGB", "BGR")
    for fit, filter_, resize, rule in (
        ("crop", "bilinear", 40, "exact"),
        ("crop", "bicubic", 20, "exact"),
        ("crop", "bicubic", (40, 50), "cover"),
        ("crop", "lanczos", (30, 44), "contain"),
        ("squash", "bicubic", 40, "exact"),
        ("pad", "bilinear", 40, "exact"),
    )
]  # fmt: skip


@pytest.mark.parametrize(
    "preprocess", WAYS, ids=lambda one: f"{one.fit}-{one.rule}-{one.resize}-{one.channels}-{len(one.mean)}"
)
def test_crop_and_batch_equal_a_call_bit_for_bit(preprocess: Preprocess) -> None:
    photos = [
        random_image(*shape, seed)
        for seed, shape in enumerate([(60, 90), (90, 60), (32, 48), (7, 200), (64, 96), (33, 1)])
    ]
    cuts = [preprocess.resize_and_crop(photo) for photo in photos]
    batch = preprocess.to_batch([cut for cut, _ in cuts])
    assert batch.shape == (6, len(preprocess.mean), 32, 48) and batch.dtype == torch.float32
    for photo, (cut, view), together in zip(photos, cuts, batch, strict=True):
        single, own_view = preprocess(photo)
        assert view == own_view and torch.equal(together[None], single)
        assert cut.pixels.dtype == np.uint8
        channels = cut.pixels.reshape(*cut.pixels.shape[:2], -1).astype(np.float64)
        if preprocess.channels == "BGR":
            channels = channels[..., ::-1]
        slow = np.zeros((32, 48, len(preprocess.mean)))
        top, left = cut.corner
        slow[top : top + channels.shape[0], left : left + channels.shape[1]] = (
            channels / 255 - preprocess.mean
        ) / preprocess.std
        np.testing.assert_allclose(single[0].permute(1, 2, 0), slow, atol=2e-6)
    assert torch.equal(preprocess.to_batch([cuts[1][0]] * 2)[1], batch[1])
