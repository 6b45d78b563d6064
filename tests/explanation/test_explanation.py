"""`Explanation`: selecting, geometry, figures, saving, and indexing a batch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy import OverlayStyle
from seewhy.errors import ChoiceError, UnknownName, UsageError
from seewhy.explanation.components import InputImage, LayerInfo, TargetResult
from seewhy.explanation.flags import FLAGS, find_flags
from seewhy.explanation.result import Explanation
from seewhy.images.regions import largest_box
from seewhy.images.view import View
from seewhy.rendering import overlays
from seewhy.tensors.map_functions import divide_by_max, positive_evidence, resize
from support.networks import Conv1dNet, InplaceNet, tiny_network

CROP = View(photo_size=(60, 100), input_size=(32, 32), box=(20.0, 0.0, 80.0, 60.0))


def make_explanation(low: list[list[float]], view: View = CROP) -> Explanation:
    """Return an explanation of one image with one known map."""
    photo = np.full((*view.photo_size, 3), 128, np.uint8)
    return Explanation(
        maps={("gradcam", "1", "layer"): torch.tensor([low])},
        target_results=(TargetResult("1", "cat", torch.tensor([2.0]), torch.tensor([1]), torch.tensor([0.9])),),
        layer_info={"layer": LayerInfo("Conv2d", (len(low), len(low[0])), 4)},
        has_gradient={},
        size=view.input_size,
        logits=torch.tensor([[0.0, 2.0, 1.0]]),
        labels=("dog", "cat", "bird, fowl"),
        inputs=torch.zeros(1, 3, *view.input_size),
        images=(InputImage("in/cat.jpg", photo, view),),
        single=True,
        provenance={"model": "tiny"},
    )


# Selecting


def test_several_maps_need_a_choice() -> None:
    net, inputs = tiny_network(InplaceNet)
    e = seewhy.explain(net, inputs, methods=["gradcam", "layercam"], layers="every", targets=[1, 2])
    assert e.methods == ("gradcam", "layercam") and e.targets == ("1", "2") and len(e) == 2
    assert e.map("layercam", 2, "first").shape == (2, 12, 12)
    for choice, words in (({}, "2 methods.*'gradcam' or layercam"), ({"method": "gradcam"}, "2 targets")):
        with pytest.raises(ChoiceError, match=words):
            e.map(**choice)
    with pytest.raises(UnknownName, match="did you mean 'first'"):
        e.map("gradcam", 1, "frist")
    with pytest.raises(UnknownName, match="no target '4'"):
        e.heatmap("gradcam", 4, "first")
    with pytest.raises(ChoiceError, match=r"use e\[0\]"):
        e.overlay("gradcam", 1, "first")


def test_targets_by_key_name_index_and_synonym() -> None:
    e = make_explanation([[1.0, 2.0], [3.0, 4.0]])
    assert e.key(target="cat") == e.key(target=1) == e.key(target="1") == ("gradcam", "1", "layer")
    with pytest.raises(UnknownName, match=r"no target 'fowl'\. This explanation has 1"):
        e.key(target="fowl")


def test_top() -> None:
    top = make_explanation([[1.0]]).top(2)
    assert [(index, name) for index, name, _ in top] == [(1, "cat"), (2, "bird")]
    assert top[0][2] == pytest.approx(float(torch.tensor([0.0, 2.0, 1.0]).softmax(0)[1]))


def test_indexing_a_batch() -> None:
    net, inputs = tiny_network(InplaceNet)
    e = seewhy.explain(net, inputs, layers="every", targets="top2")
    assert [len(item) for item in e] == [1, 1] and e[-1].single
    for index in range(2):
        one = e[index]
        best = e.logits[index].topk(2).indices.tolist()
        assert one.targets == tuple(map(str, best))
        assert torch.equal(one.map(target=best[1], layer="first"), e.map(target="top2", layer="first")[index])
    with pytest.raises(IndexError):
        e[2]


def test_duplicate_targets_have_one_result() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    torch.nn.init.dirac_(net[0].weight)  # one class per color
    inputs = torch.zeros(2, 3, 8, 8)
    inputs[0, 0], inputs[1, 2] = 9.0, 9.0
    assert seewhy.explain(net, inputs[:1], layers="0", targets=["top1", 0]).targets == ("0",)
    # In a batch the rank is a target of its own; for a single image it is merged with the class that has this rank.
    e = seewhy.explain(net, inputs, layers="0", targets=["top1", 0, 1])
    assert e.targets == ("top1", "0", "1")
    assert e[0].targets == ("0", "1") and e[1].targets == ("2", "0", "1")


# Arithmetic


def test_heatmaps_are_rectified_resized_and_divided_by_their_maximum() -> None:
    heatmap = make_explanation([[-3.0, 2.0], [4.0, 0.0]]).heatmap()
    assert heatmap.shape == (32, 32) and heatmap.max() == 1 and heatmap.min() == 0
    assert heatmap[0, -1] == pytest.approx(0.5) and heatmap[0, 0] == 0 and heatmap[-1, 0] == 1


def test_uniform_evidence_is_one_and_no_evidence_is_zero() -> None:
    assert (make_explanation([[2.0, 2.0]]).heatmap() == 1).all()
    blank = make_explanation([[-2.0, -1.0]])
    assert (blank.heatmap() == 0).all() and blank.flags() == ("no_evidence",) and blank.positive_evidence() == 0
    assert not blank.mask().any() and blank.box() is None
    assert make_explanation([[2.0, 2.0]]).flags() == ("constant",)
    assert set(FLAGS) >= {"constant", "no_evidence"}


def test_flags() -> None:
    maps = torch.tensor([[[1.0, float("nan")]], [[0.0, 0.0]], [[1.0, 2.0]]])
    assert find_flags(maps, torch.tensor([True, False, True])) == [("non_finite",), ("no_gradient",), ()]
    assert find_flags(torch.ones(1, 1, 1), None) == [("no_grid",)]


def test_tensor_functions() -> None:
    assert torch.equal(divide_by_max(torch.tensor([[2.0, 4.0], [-1.0, 0.0]])), torch.tensor([[0.5, 1.0], [0.0, 0.0]]))
    assert positive_evidence(torch.tensor([[3.0, -1.0]])).item() == 0.75
    assert resize(torch.rand(2, 5), (9,)).shape == (2, 9) and resize(torch.rand(2, 3, 4, 5), (6, 6, 6)).shape == (
        2,
        6,
        6,
        6,
    )


# Geometry


def test_a_heatmap_on_the_photo_equals_the_heatmap_at_the_input() -> None:
    """If the photo is the input, mapping to the photo is resizing."""
    view = View((32, 32), (32, 32), (0.0, 0.0, 32.0, 32.0))
    e = make_explanation(torch.rand(5, 7).tolist(), view)
    np.testing.assert_allclose(e.on_photo(), e.heatmap().numpy(), atol=1e-6)


def test_the_heatmap_is_zero_outside_the_crop() -> None:
    e = make_explanation([[1.0, 1.0], [1.0, 1.0]])
    heatmap = e.on_photo()
    assert heatmap.shape == (60, 100)
    assert (heatmap[:, 20:80] == 1).all() and not heatmap[:, :20].any() and not heatmap[:, 80:].any()
    assert e.box() == CROP.visible_box == (20, 0, 80, 60)


def test_padding_is_not_part_of_the_heatmap_on_the_photo() -> None:
    view = View((60, 100), (32, 32), (0.0, -20.0, 100.0, 80.0))
    heatmap = make_explanation([[0.0, 0.0], [0.0, 1.0]], view).on_photo()
    assert heatmap.shape == (60, 100) and heatmap[-1, -1] > 0.9 and heatmap[0, 0] == 0


def test_mask_and_box_follow_the_threshold() -> None:
    e = make_explanation([[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0], [0.9, 0.0, 0.0, 0.0]])
    assert e.mask(0.9).sum() < e.mask(0.3).sum()
    left, top, right, bottom = e.box(0.6)
    assert 25 < left < 50 < right < 65 and 10 < top < bottom < 35  # the region around the peak, not the far corner
    for wrong in (0, -1, 1.5):
        with pytest.raises(UsageError, match="threshold"):
            e.mask(wrong)


def test_the_largest_region_equals_a_flood_fill() -> None:
    generator = np.random.default_rng(0)
    for _ in range(60):
        mask = generator.random((9, 11)) < generator.choice([0.2, 0.4, 0.6])
        assert largest_box(mask) == flood_fill_box(mask)


def flood_fill_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    best: list[tuple[int, int]] = []
    left = {tuple(cell) for cell in np.argwhere(mask).tolist()}
    for start in sorted(left):
        if start not in left:
            continue
        part, stack = [], [start]
        left.discard(start)
        while stack:
            y, x = stack.pop()
            part.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            stack += near
        best = part if len(part) > len(best) else best
    if not best:
        return None
    ys, xs = zip(*best, strict=True)
    return min(xs), min(ys), max(xs) + 1, max(ys) + 1


# Figures


def test_overlays_dim_outside_the_crop_and_color_the_evidence() -> None:
    image = np.asarray(make_explanation([[1.0, 0.0], [0.0, 0.0]]).overlay(style=OverlayStyle(colors="viridis")))
    assert image.shape == (60, 100, 3)
    assert image[30, 5].max() < 60 and (image[55, 75] == 128).all()  # dimmed outside; untouched without evidence
    assert image[5, 25, 0] > 180 and image[5, 25, 2] < 90  # yellow at the peak


def test_blend_colors_everything_inside_the_crop() -> None:
    image = np.asarray(make_explanation([[1.0, 0.0], [0.0, 0.0]]).overlay(style=OverlayStyle("blend", "jet", 0.5)))
    assert image[55, 75, 2] > image[55, 75, 0] and image[30, 5].max() < 60


def test_overlays_have_the_requested_size() -> None:
    e = make_explanation([[1.0, 0.0]])
    assert e.overlay(longest=50).size == (50, 30) and e.overlay(longest=None).size == (100, 60)
    assert e.overlay(longest=4000).size == (100, 60)  # never enlarged


def test_classic_overlays_equal_the_tutorial_byte_by_byte() -> None:
    from seewhy.rendering.colors import table

    e = dataclasses.replace(make_explanation([[-1.0, 1.0], [3.0, 5.0]]), inputs=torch.rand(1, 3, 32, 32))
    low = torch.tensor([[0.0, 1.0], [3.0, 5.0]]) / 5  # rectified; the minimum is 0
    heatmap = torch.nn.functional.interpolate(low[None, None], (32, 32), mode="bilinear")[0, 0].numpy()
    expected = np.rint(0.6 * e.input_pixels() + 0.4 * table("jet")[(heatmap * 255).astype(np.uint8)])
    assert (np.asarray(e.classic_overlay()) == expected).all()
    flat = dataclasses.replace(e, maps={("gradcam", "1", "layer"): torch.full((1, 2, 2), 3.0)})
    blue = np.rint(0.6 * e.input_pixels() + 0.4 * table("jet")[0])  # max = min is drawn as zero, as in the tutorial
    assert (np.asarray(flat.classic_overlay()) == blue).all()


def test_tensors_are_drawn_on_the_input() -> None:
    net, inputs = tiny_network(InplaceNet)
    e = seewhy.explain(net, inputs, layers="first")[0]
    assert e.overlay().size == (12, 12) and e.contact_sheet().width > 12
    assert e._repr_png_()[:4] == b"\x89PNG"
    line, signal = tiny_network(Conv1dNet)
    with pytest.raises(UsageError, match="1 axes"):
        seewhy.explain(line, signal, layers="first")[0].on_photo()


def test_contact_sheets_contain_every_layer() -> None:
    net, inputs = tiny_network(InplaceNet)
    e = seewhy.explain(net, inputs, layers="every", methods=["gradcam", "layercam"])[0]
    small, large = e.contact_sheet("gradcam", layers=["first"]), e.contact_sheet("gradcam")
    assert large.width * large.height > small.width * small.height
    assert e.comparison("first").width > e.contact_sheet("gradcam", layers=["first"]).width


# Files


def test_saving_and_loading(tmp_path: Path, embedded: seewhy.LoadedModel) -> None:
    e = seewhy.explain(
        embedded, seewhy.sample("coffee"), methods=["gradcam", "layercam"], layers=["bn2", "-1"], targets="top2"
    )
    paths = e.save(tmp_path / "run")
    assert {path.name for path in paths} == {"maps.npz", "photo.jpg", "explanation.json"}
    again = seewhy.load_explanation(tmp_path / "run")
    assert again.maps.keys() == e.maps.keys()
    assert all(torch.equal(again.maps[key], e.maps[key]) for key in e.maps)
    assert again.view == e.view and again.target_results[0].name == "espresso" and again.layer_info == e.layer_info
    assert again.box(method="gradcam", target=967, layer="bn2") == e.box(method="gradcam", target=967, layer="bn2")
    assert again.overlay("gradcam", 967, "bn2").size == e.overlay("gradcam", 967, "bn2").size
    record = json.loads((tmp_path / "run" / "explanation.json").read_text())
    assert record["top"][0]["name"] == "espresso" and record["files"] == ["maps.npz", "photo.jpg"]
    assert (
        record["provenance"]["weights"].startswith("sha256:")
        and record["provenance"]["versions"]["torch"] == torch.__version__
    )
    assert {"method", "target", "layer", "shape", "min", "max", "positive_evidence", "flags"} == record["maps"][
        0
    ].keys()


def test_a_loaded_photo_is_dimmed_once(tmp_path: Path) -> None:
    e = make_explanation([[1.0, 0.0], [0.0, 0.0]])
    e.save(tmp_path)
    before, after = (
        np.asarray(e.overlay()).astype(int),
        np.asarray(seewhy.load_explanation(tmp_path).overlay()).astype(int),
    )
    assert np.abs(before - after).max() <= 6  # JPEG


def test_non_finite_numbers_are_null_in_json(tmp_path: Path) -> None:
    e = make_explanation([[float("nan"), 1.0]])
    e.save(tmp_path)
    (entry,) = json.loads((tmp_path / "explanation.json").read_text())["maps"]
    assert entry["max"] is None and entry["flags"] == ["non_finite"]


def test_saved_photos_have_no_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    exif[0x8825] = {1: "N"}
    Image.new("RGB", (64, 64)).save(tmp_path / "gps.jpg", exif=exif)
    e = seewhy.explain(seewhy.load_model(), tmp_path / "gps.jpg")
    e.save(tmp_path / "run")
    with Image.open(tmp_path / "run" / "photo.jpg") as photo:
        assert not photo.getexif() and "exif" not in photo.info


@pytest.mark.parametrize("damage", ["missing", "text", "torn", "keys"])
def test_folders_without_a_readable_explanation(tmp_path: Path, damage: str) -> None:
    if damage != "missing":
        make_explanation([[1.0, 2.0]]).save(tmp_path)
    if damage == "text":
        (tmp_path / "explanation.json").write_text("hello")
    if damage == "torn":
        (tmp_path / "maps.npz").write_bytes((tmp_path / "maps.npz").read_bytes()[:40])
    if damage == "keys":
        (tmp_path / "explanation.json").write_text("{}")
    with pytest.raises(
        UsageError, match=r"no saved explanation here|(explanation\.json|maps\.npz): .* Create it again"
    ):
        seewhy.load_explanation(tmp_path)


def test_repr_is_short() -> None:
    assert repr(make_explanation([[1.0]])) == "<Explanation of 1 image: gradcam, target 1, layer layer>"


def test_bgr_inputs_are_drawn_as_rgb() -> None:
    red = np.zeros((3, 4, 4), np.float32)
    red[2] = 1.0
    pixels = overlays.input_pixels(red, {"mean": (0.0,) * 3, "std": (1.0,) * 3, "channels": "BGR"})
    assert pixels[0, 0].tolist() == [255, 0, 0]
