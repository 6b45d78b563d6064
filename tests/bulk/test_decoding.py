"""Pictures read one by one and ahead: whatever a file, a folder of pipes or the user's own code does to the reader."""

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
from seewhy.bulk.decoding import MAX_BYTES, DecodedImage, Reader, read
from seewhy.bulk.input_regions import from_boxes, from_mask
from seewhy.images.loading import load_image
from seewhy.images.preprocess import Preprocess
from seewhy.images.resizing import ResizedCrop
from seewhy.images.view import View

PREPROCESS = Preprocess((16, 24), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 20)
LIMIT = 10_000


def picture(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def put(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def taken(path: str | Path, preprocess: Any = PREPROCESS, **more: Any) -> DecodedImage:
    return read(Item("name", str(path), **more), preprocess, LIMIT)


# One picture


def test_what_is_known_of_a_picture(tmp_path: Path) -> None:
    content = encoded(picture(30, 50))
    found = taken(put(tmp_path / "a.png", content), label="7")
    assert found.error is None and found.region is None
    assert (found.item.id, found.item.label) == ("name", "7")
    assert (found.sha256, found.size, found.photo) == (hashlib.sha256(content).hexdigest(), len(content), (30, 50))
    inputs, view = PREPROCESS(picture(30, 50))
    assert found.view == view and isinstance(found.inputs, ResizedCrop)
    assert torch.equal(PREPROCESS.to_batch([found.inputs]), inputs)


def test_a_picture_from_a_tar_file_leaves_its_bytes_behind() -> None:
    content = encoded(picture(30, 50))
    found = taken("x.tar/a.png", data=content)
    assert found.error is None and found.size == len(content) and found.item.data is None
    assert taken("x.tar/a.png", data=b"no picture").item.data is None
    assert "empty" in str(taken("x.tar/a.png", data=b"").error)


def test_a_turned_photo_is_upright_in_every_number(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = put(tmp_path / "a.jpg", encoded(picture(30, 50), "JPEG", exif=exif))
    mask = np.zeros((50, 30), np.uint8)
    mask[10:20] = 1
    found = taken(path, mask=put(tmp_path / "m.png", encoded(mask)))
    assert found.photo == (50, 30) and found.view is not None and found.view.photo_size == (50, 30)
    assert found.error is None and found.region is not None
    np.testing.assert_array_equal(found.region, from_mask(mask > 0, found.view))


def test_regions(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(picture(30, 50)))
    mask = put(tmp_path / "m.png", encoded(np.arange(1500, dtype=np.uint8).reshape(30, 50) % 3))
    view = PREPROCESS(picture(30, 50))[1]
    boxes = ((1.0, 2.0, 30.5, 20.0), (20.0, 10.0, 80.0, 90.0))
    np.testing.assert_array_equal(taken(path, boxes=boxes).region, from_boxes(boxes, view))
    levels = load_image(mask)[..., 0]
    by_value = taken(path, boxes=boxes, mask=mask, mask_value=2).region  # the mask says more
    np.testing.assert_array_equal(by_value, from_mask(levels == 2, view))
    np.testing.assert_array_equal(taken(path, mask=mask).region, from_mask(levels != 0, view))
    assert taken(path, boxes=()).region is None and taken(path, mask_value=2).region is None


def test_an_error_that_is_known_is_passed_on(tmp_path: Path) -> None:
    found = taken(tmp_path / "none.png", error="no such row", data=b"x")
    assert found.error == "no such row" and found.item.data is None and found.sha256 is None


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    good = encoded(picture(40, 60))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # takes no room on the disk
    for name, content in {
        "empty.png": b"", "text.jpg": b"no picture at all", "cut.png": good[: len(good) // 2], "head.png": good[:20],
        "cut.jpg": encoded(picture(40, 60), "JPEG")[:900], "huge.png": encoded(picture(101, 100)),
    }.items():  # fmt: skip
        put(tmp_path / name, content)
    reasons = {
        "empty.png": "an empty file", "text.jpg": "not an image that seewhy can read", "cut.png": "corrupt or truncated",
        "head.png": "corrupt", "cut.jpg": "corrupt or truncated", "huge.png": "over the limit of 10,000",
        "pipe.png": "is no file but a pipe, a socket or a device", "folder.png": "is a folder, not an image",
        "none.png": "no such file", "loop.png": "too many levels of symbolic links", "gone.png": "no such file",
        "large.png": "a file of more than 512 MB", "nul\0.png": "null",
    }  # fmt: skip
    for name, reason in reasons.items():
        found = taken(f"{tmp_path}/{name}")
        assert found.error is not None and reason in found.error and "\n" not in found.error, (name, found.error)
        assert found.inputs is None and found.view is None and found.item.id == "name"
    huge = taken(tmp_path / "huge.png")  # what is known of a file is kept
    assert huge.sha256 is not None and huge.size == os.path.getsize(tmp_path / "huge.png") and huge.photo is None
    assert taken("/dev/zero").error == "is no file but a pipe, a socket or a device"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_picture_that_may_not_be_read(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(picture(30, 50)))
    os.chmod(path, 0)
    assert taken(path).error == "permission denied"


def test_a_picture_that_may_not_be_read_as_the_system_would_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "stat", refuse)
    assert taken("a.png").error == "permission denied"


def test_masks_that_cannot_be_used_fail_their_picture(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(picture(30, 50)))
    os.mkfifo(tmp_path / "pipe.png")  # must not be waited for
    put(tmp_path / "small.png", encoded(np.ones((30, 49), np.uint8)))
    put(tmp_path / "broken.png", encoded(np.ones((30, 50), np.uint8))[:50])
    reasons = {
        "none.png": "no such file",
        "small.png": "is 49 x 30, and the photo 50 x 30",
        "broken.png": "corrupt",
        "pipe.png": "no file",
    }
    for name, reason in reasons.items():
        found = taken(path, mask=f"{tmp_path}/{name}")
        assert found.error and f"the mask {tmp_path}/{name}" in found.error and reason in found.error
        assert found.photo == (30, 50) and found.inputs is None


def test_a_picture_too_thin_for_a_crop(tmp_path: Path) -> None:
    wide = Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3, "bilinear", 8000)
    found = taken(put(tmp_path / "a.png", encoded(picture(1, 4000))), wide)
    assert found.error and "too thin to crop" in found.error


# The user's own preprocessing


def own(image: Any) -> tuple[torch.Tensor, View]:
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    return tensor[..., :8, :8], View((image.shape[0], image.shape[1]), (8, 8), (0, 0, 8, 8))


def test_preprocessing_that_the_user_wrote(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(picture(30, 50)))
    found = taken(path, own, boxes=((0, 0, 4, 8),))
    assert isinstance(found.inputs, np.ndarray) and found.inputs.dtype == np.float32
    np.testing.assert_array_equal(found.inputs, own(picture(30, 50))[0].float())
    assert found.view == View((30, 50), (8, 8), (0, 0, 8, 8)) and found.region is not None
    assert found.region.sum() == 32


def test_preprocessing_that_raises(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(picture(30, 50)))

    def raising(error: BaseException) -> Any:
        def call(image: Any) -> Any:
            raise error

        return call

    assert taken(path, raising(ValueError("too odd\nfor me"))).error == "ValueError: too odd"
    assert taken(path, raising(RuntimeError())).error == "RuntimeError: "
    assert taken(path, raising(MemoryError())).error == "MemoryError: "
    assert taken(path, raising(OSError(28, "No space left on device"))).error == "no space left on device"
    assert "KeyError" in str(taken(path, lambda image: {}["x"]).error)
    for nonsense in (lambda image: None, lambda image: torch.zeros(1), lambda image: (image, None)):
        found = taken(path, nonsense)
        assert found.error and found.inputs is None and found.photo == (30, 50)


# Ahead


def deadly_preprocess() -> Any:
    """Ends its process for a photo of the width 13 and raises for 14.

    Made inside a function, it travels by value: a process that reads need import neither this file nor torch.
    """

    class Numbers:
        def __init__(self, value: float) -> None:
            self.value = value

        def float(self) -> Any:
            return self

        def numpy(self) -> Any:
            return np.full((1, 3, 4, 4), self.value, np.float32)

    def deadly(image: Any) -> Any:
        if image.shape[1] == 13:
            os._exit(3)
        if image.shape[1] == 14:
            raise ValueError("fourteen")
        return Numbers(image.shape[1]), View(image.shape[:2], (4, 4), (0.0, 0.0, 4.0, 4.0))

    return deadly


DEADLY = deadly_preprocess()


def listed(folder: Path, widths: list[int]) -> list[tuple[int, Item]]:
    """Items with tags, of photos of these widths; 0 is a file that is no picture."""
    paths = [
        put(folder / f"{place}.png", encoded(picture(10, width)) if width else b"none")
        for place, width in enumerate(widths)
    ]
    return [(place, Item(f"{place}", path)) for place, path in enumerate(paths)]


@pytest.fixture
def made() -> Iterator[Any]:
    readers: list[Reader] = []

    def make(preprocess: Any, workers: int) -> Reader:
        readers.append(Reader(preprocess, workers=workers, max_pixels=LIMIT))
        return readers[-1]

    yield make
    for reader in readers:
        reader.stop()


def widths_of(found: list[tuple[int, DecodedImage]]) -> list[float | str]:
    """What came of each: the width that its reader saw, or what went wrong."""
    return [read.error or float(np.asarray(read.inputs).mean()) for _, read in found]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_order_stays_and_so_do_the_tags(workers: int, tmp_path: Path, made: Any) -> None:
    widths = [20, 30, 14, 40, 0, 50, 60, 70, 80]
    found = list(made(DEADLY, workers).stream(listed(tmp_path, widths), 4))
    assert [tag for tag, _ in found] == list(range(9)) and [read.item.id for _, read in found] == list("012345678")
    came = widths_of(found)
    assert came[2] == "ValueError: fourteen" and "not an image" in str(came[4])
    assert [came[n] for n in (0, 1, 3, 5, 6, 7, 8)] == [20, 30, 40, 50, 60, 70, 80]


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("workers", [0, 1])
def test_no_more_are_held_than_asked_for(workers: int, ahead: int, tmp_path: Path, made: Any) -> None:
    asked = 0

    def source() -> Iterator[tuple[int, Item]]:
        nonlocal asked
        for one in items:
            asked += 1
            yield one

    items = listed(tmp_path, [20] * 7)
    held = []
    for given, _ in enumerate(made(DEADLY, workers).stream(source(), ahead)):
        held.append(asked - given)  # this one included
    assert max(held) == max(1, ahead) and len(held) == 7


@pytest.mark.parametrize(
    "widths", [[20, 30, 40, 13], [13, 20], [20, 13, 14, 0, 13, 30, 40]], ids=["last", "first", "two"]
)
def test_a_picture_that_ends_its_reader_fails_alone(widths: list[int], tmp_path: Path, made: Any) -> None:
    found = list(made(DEADLY, 2).stream(listed(tmp_path, widths), 4))
    assert [tag for tag, _ in found] == list(range(len(widths)))
    expected = {13: "reading it ended the process that read it", 14: "ValueError: fourteen", 0: None}
    for width, came in zip(widths, widths_of(found), strict=True):
        wanted = expected.get(width, float(width))
        assert came == wanted if wanted is not None else "not an image" in str(came)
    for _, one in found:
        assert one.item.data is None


class Refusing(Executor):
    """A pool that broke while nobody looked: what comes next is refused when it is handed in."""

    def submit(self, *_: Any, **__: Any) -> Future[Any]:  # type: ignore[override]
        raise BrokenExecutor("a process ended")

    def shutdown(self, *_: Any, **__: Any) -> None: ...


def test_a_pool_that_broke_between_two_pictures(tmp_path: Path, made: Any) -> None:
    reader = made(DEADLY, 0)
    reader.pool = Refusing()
    assert widths_of(list(reader.stream(listed(tmp_path, [20, 30, 40]), 2))) == [20, 30, 40]


def test_a_reader_can_be_stopped_and_goes_on(tmp_path: Path, made: Any) -> None:
    for workers in (0, 1):
        reader = made(DEADLY, workers)
        reader.stop()  # of nothing
        stream = reader.stream(listed(tmp_path, [20, 30, 40]), 2)
        assert next(stream)[1].error is None
        stream.close()
        reader.stop()
        assert reader.pool is None
        assert widths_of(list(reader.stream(listed(tmp_path, [20, 30]), 2))) == [20, 30]


def test_without_processes_a_thread_of_this_one_reads(tmp_path: Path, made: Any) -> None:
    seen = set()

    def watching(image: Any) -> Any:  # no process could tell us what it saw
        seen.add((os.getpid(), threading.get_ident()))
        return DEADLY(image)

    assert widths_of(list(made(watching, 0).stream(listed(tmp_path, [20, 30, 40]), 2))) == [20, 30, 40]
    ((process, thread),) = seen
    assert process == os.getpid() and thread != threading.get_ident()


def test_processes_of_their_own_read_with_what_no_pickle_takes(tmp_path: Path, made: Any) -> None:
    def elsewhere(image: Any) -> Any:
        return DEADLY(np.zeros((1, os.getpid())))

    found = list(made(elsewhere, 1).stream(listed(tmp_path, [20, 30]), 2))
    pids = {float(read.inputs.max()) for _, read in found if isinstance(read.inputs, np.ndarray)}
    assert len(pids) == 1 and float(np.float32(os.getpid())) not in pids


def test_boxes_masks_and_bytes_travel_to_a_process_and_back(tmp_path: Path, made: Any) -> None:
    content = encoded(picture(30, 50))
    item = Item("x.tar/a", "x.tar/a.png", data=content, boxes=((1, 2, 30, 20),), label="cat")
    ((_, found),) = made(PREPROCESS, 1).stream([(0, item)], 2)
    here = read(item, PREPROCESS, LIMIT)
    assert isinstance(found.inputs, ResizedCrop) and isinstance(here.inputs, ResizedCrop) and found.item == here.item
    np.testing.assert_array_equal(found.inputs.pixels, here.inputs.pixels)
    np.testing.assert_array_equal(found.region, here.region)
    assert (found.view, found.sha256, found.inputs.corner) == (here.view, here.sha256, here.inputs.corner)


# Cut and batch


GREY: dict[str, Any] = {"mean": (0.45,), "std": (0.22,)}
COLOUR: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
WAYS = [
    Preprocess((32, 48), interpolation=filter_, resize=resize, rule=rule, fit=fit, channels=channels, **numbers)
    for numbers in (GREY, COLOUR)
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
def test_cut_and_batch_are_a_call_bit_for_bit(preprocess: Preprocess) -> None:
    photos = [
        picture(*shape, seed) for seed, shape in enumerate([(60, 90), (90, 60), (32, 48), (7, 200), (64, 96), (33, 1)])
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
