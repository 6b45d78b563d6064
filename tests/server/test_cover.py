"""Covering parts of an image over HTTP: the answer, and invalid requests."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.engine.options import Options
from seewhy.server import cover
from seewhy.server.shapes import MAX_BYTES, MAX_POINTS, MAX_SHAPES
from seewhy.trust import CoverTest, Rectangle, Stroke
from support.local_app import LIMITS, LocalApp, make_dense_model, make_image, make_small_model, wait_until

BOX = {"type": "rectangle", "left": 0.1, "top": 0.2, "right": 0.6, "bottom": 0.75}
STROKE = {"type": "stroke", "points": [[0.1, 0.1], [0.9, 0.8]], "radius": 0.1}
SHAPES = [Rectangle(0.1, 0.2, 0.6, 0.75), Stroke([(0.1, 0.1), (0.9, 0.8)], 0.1)]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalApp]:
    server = LocalApp([make_small_model(), seewhy.load_model()])
    yield server
    server.close()


def answer(server: LocalApp, image: bytes, shapes: object = (), **query: Any) -> dict[str, Any]:
    status, events = server.cover(image, shapes, **query)
    assert status == 200 and "cover" in events[-1], events
    found: dict[str, Any] = events[-1]["cover"]
    return found


def decode(url: str) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image)


@pytest.mark.parametrize("filler", ["blur", "mean", "#00ff00"])
@pytest.mark.parametrize("fit", ["", "squash", "pad"])
def test_answer_is_that_of_python(server: LocalApp, filler: str, fit: str) -> None:
    image = make_image(size=(90, 70))
    found = answer(server, image, [BOX, STROKE], filler=filler, fit=fit, name="one.png")
    test = CoverTest(seewhy.prepare(server.models[0]), seewhy.load_image(image), fit=fit or None)  # type: ignore[arg-type]
    expected = test.run(SHAPES, filler)
    rows = [(one.index, one.name, one.before, one.after, one.is_new) for one in expected.changes]
    assert [
        tuple(row[key] for key in ("index", "name", "before", "after", "is_new")) for row in found["changes"]
    ] == rows
    assert any(row["before"] != row["after"] for row in found["changes"])
    assert np.abs(decode(found["photo"]).astype(int) - expected.photo).mean() < 10  # JPEG
    # The shorter side of 70 pixels is resized to 73, and a square of 64 is cropped.
    crop = pytest.approx([14 / 93, 4 / 73, 78 / 93, 68 / 73], abs=1 / 70)
    assert found["visible"] == ([0, 0, 1, 1] if fit else crop)


def test_without_shapes_nothing_changes(server: LocalApp) -> None:
    found = answer(server, make_image(), model=1)
    assert len(found["changes"]) == 5 and all(row["before"] == row["after"] for row in found["changes"])
    assert np.abs(decode(found["photo"]).astype(int) - seewhy.load_image(make_image())).mean() < 6


def test_orientation_of_the_camera_is_applied_before_covering(server: LocalApp) -> None:
    """The left half of the upright photo is covered, whatever the order of its pixels in the file."""
    upright = Image.open(io.BytesIO(make_image(size=(80, 60))))
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=exif)
    half = {"type": "rectangle", "left": 0, "top": 0, "right": 0.5, "bottom": 1}
    found = answer(server, file.getvalue(), [half], filler="#0000ff")
    photo = decode(found["photo"]).astype(int)
    assert photo.shape == (60, 80, 3)
    assert np.abs(photo[:, :38] - (0, 0, 255)).max() < 40 and photo[:, 42:, 2].max() < 60
    assert found["changes"] == answer(server, make_image(size=(80, 60)), [half], filler="#0000ff")["changes"]


def test_sample_has_no_bytes_after_its_shapes(server: LocalApp) -> None:
    found = answer(server, b"", [{**BOX, "left": 0.0, "right": 1.0}], model=1, sample="coffee")
    assert found["changes"][0]["name"] == "espresso" and found["changes"][0]["after"] < found["changes"][0]["before"]


def test_large_photo_is_sent_at_the_size_of_the_page(server: LocalApp) -> None:
    assert decode(answer(server, make_image(size=(2000, 1000)), [BOX])["photo"]).shape == (400, 800, 3)


def test_the_last_photo_is_decoded_once_and_dropped_by_the_next(
    server: LocalApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[tuple[int, ...]] = []

    class Counted(CoverTest):
        def __init__(self, model: Any, photo: Any, **settings: Any) -> None:
            created.append(photo.shape)
            super().__init__(model, photo, **settings)

    monkeypatch.setattr(cover, "CoverTest", Counted)
    one, two = make_image(size=(90, 71)), make_image(size=(90, 72))
    first = answer(server, one, [BOX], name="a.png")
    answer(server, one, [STROKE], filler="mean", name="b.png")
    assert answer(server, one, [BOX])["changes"] == first["changes"] and len(created) == 1
    answer(server, two, [BOX])
    answer(server, one, [BOX])
    answer(server, one, [BOX], fit="pad")
    answer(server, one, [BOX], fit="pad", model=1)
    assert [shape[0] for shape in created] == [71, 72, 71, 71, 71]
    server.explain(two)  # the app shows another photo
    answer(server, one, [BOX], fit="pad", model=1)
    assert len(created) == 6


def test_models_without_labels_with_independent_classes_and_with_one_class() -> None:
    torch.manual_seed(0)
    sizes = (1, 3)
    nets = [
        torch.nn.Sequential(torch.nn.Conv2d(3, size, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        for size in sizes
    ]
    preprocess = seewhy.Preprocess.imagenet(32)
    server = LocalApp([seewhy.load_model(net, preprocess=preprocess) for net in nets], options=Options(multilabel=True))
    try:
        for number, size in enumerate(sizes):
            changes = answer(server, make_image(), [BOX], model=number)["changes"]
            assert sorted(row["name"] for row in changes) == [f"class {index}" for index in range(size)]
            test = CoverTest(server.models[number], seewhy.load_image(make_image()), multilabel=True)
            assert [row["after"] for row in changes] == pytest.approx(
                [one.after for one in test.run(SHAPES[:1]).changes]
            )
        assert sum(row["before"] for row in changes) != pytest.approx(1, abs=0.01)
    finally:
        server.close()


def test_model_without_class_scores_is_one_line() -> None:
    server = LocalApp([make_dense_model()])
    try:
        status, events = server.cover(make_image(), [BOX])
        assert status == 200 and "no class scores" in events[-1]["error"] and "\n" not in events[-1]["error"]
    finally:
        server.close()


def test_not_finite_scores_are_null() -> None:
    class Infinite(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) / 0

    server = LocalApp([seewhy.load_model(Infinite(), preprocess=seewhy.Preprocess.imagenet(32))])
    try:
        changes = answer(server, make_image(), [BOX])["changes"]
        assert {row["before"] for row in changes} == {None}
    finally:
        server.close()


# Invalid requests


def box(**changes: Any) -> list[dict[str, Any]]:
    return [{**BOX, **changes}]


def stroke(**changes: Any) -> list[dict[str, Any]]:
    return [{**STROKE, **changes}]


INVALID: dict[str, object] = {
    "not JSON": b"left=0.1",
    "nothing": b"",
    "not UTF-8": b'[{"type":"\xff"}]',
    "cut off": json.dumps([BOX]).encode()[:-3],
    "a number": 7,
    "an object": BOX,
    "null": None,
    "null in the list": [None],
    "too many shapes": [BOX] * (MAX_SHAPES + 1),
    "too many points": stroke(points=[[0.5, 0.5]] * (MAX_POINTS + 1)),
    "too many points together": stroke(points=[[0.5, 0.5]] * (MAX_POINTS // 2)) * 3,
    "too long": b" " * MAX_BYTES + b"[]",
    "nested": b"[" * 20_000 + b"]" * 20_000,
    "NaN": b'[{"type":"rectangle","left":NaN,"top":0,"right":1,"bottom":1}]',
    "infinity": b'[{"type":"rectangle","left":0,"top":0,"right":Infinity,"bottom":1}]',
    "too large number": b'[{"type":"rectangle","left":0,"top":0,"right":1e999,"bottom":1}]',
    "many digits": b'[{"type":"rectangle","left":0,"top":0,"right":' + b"9" * 5000 + b',"bottom":1}]',
    "outside": box(left=-0.01),
    "beyond": box(right=1.01),
    "empty rectangle": box(left=0.6),
    "turned rectangle": box(top=0.9),
    "text for a number": box(left="0.1"),
    "true for a number": box(left=True),
    "missing edge": [{key: value for key, value in BOX.items() if key != "top"}],
    "additional field": box(path="/etc/passwd"),
    "unknown type": box(type="file"),
    "no points": stroke(points=[]),
    "three coordinates": stroke(points=[[0.1, 0.2, 0.3]]),
    "point outside": stroke(points=[[0.1, 1.5]]),
    "no radius": stroke(radius=0),
    "negative radius": stroke(radius=-0.1),
    "huge radius": stroke(radius=1e308),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_shapes_are_rejected_in_one_line(server: LocalApp, name: str) -> None:
    status, events = server.cover(make_image(), INVALID[name])
    assert status == 422 and len(events) == 1 and 0 < len(events[0]["error"]) < 400 and "\n" not in events[0]["error"]
    wait_until(lambda: server.server.work_queue.free_slots == LIMITS.slots)


def test_invalid_shapes_name_the_field(server: LocalApp) -> None:
    assert "left" in server.cover(make_image(), box(left=-1))[1][0]["error"]
    assert "2,000" in server.cover(make_image(), INVALID["too many points together"])[1][0]["error"]


@pytest.mark.parametrize(
    "query",
    [{"filler": "linear"}, {"filler": "#fff"}, {"filler": "url(http://127.0.0.1/x)"}, {"filler": "x" * 5000}, {"model": "2"},
     {"fit": "none"}, {"sample": "../../etc/passwd"}],
    ids=lambda query: str(query)[:40],
)  # fmt: skip
def test_value_that_is_not_on_the_lists_is_rejected(server: LocalApp, query: dict[str, str]) -> None:
    status, events = server.cover(make_image(), [BOX], **query)
    assert status == 422 and len(events[0]["error"]) < 400


def test_file_that_is_not_an_image_is_rejected(server: LocalApp) -> None:
    for data in (b"", b"junk", b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
        status, events = server.cover(data, [BOX], name="x.png")
        assert status == 415 and events[0]["error"].startswith("x.png: ")
    status, events = server.cover(make_image(size=(300, 300), form="JPEG")[:-2000], [BOX], name="cut")
    assert (status, events[-1]["error"].startswith("cut: ")) in ((200, True), (415, True))


def test_too_large_body_is_rejected(server: LocalApp) -> None:
    large = make_image() + b"\0" * LIMITS.body_bytes
    for shapes in ([BOX], b"x" * 100):  # also without a valid line of shapes
        status, events = server.cover(large + b"\0" * MAX_BYTES, shapes)
        assert status == 413 and "2 MB" in events[0]["error"]


def test_get_is_not_allowed(server: LocalApp) -> None:
    assert server.request("/cover")[0] == 405


# The check


def test_pages_show_verdicts_unless_the_check_is_off() -> None:
    for checks in (True, False):
        server = LocalApp([make_small_model()], checks=checks)
        try:
            page = server.explain(make_image(), top=1)[1][-1]["page"]
            assert ('"verdict":"' in page) is checks
            assert ("--no-check" in page) is not checks
        finally:
            server.close()


def test_failed_check_is_a_note(server: LocalApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("no\nscore")

    monkeypatch.setattr("seewhy.server.app.check", fail)
    page = server.explain(make_image(), top=1)[1][-1]["page"]
    assert "the maps were not checked: no score" in page and '"verdict":"' not in page


def test_check_stops_when_the_client_disconnects(server: LocalApp) -> None:
    """The check reports errors of the model; a canceled job is none."""
    from seewhy.server.app import explain_image
    from seewhy.server.work_queue import JobCancelled

    def stop(done: int, total: int) -> None:
        if total == 28:  # forward passes of the check
            calls.append(done)
            raise JobCancelled

    calls: list[int] = []
    image = seewhy.engine.inputs.NamedImage("a", seewhy.load_image(make_image()))
    options = Options(methods=("gradcam",), layers=("suggested",))
    with pytest.raises(JobCancelled):
        explain_image(seewhy.prepare(server.models[0]), image, options, stop)
    assert len(calls) == 1
