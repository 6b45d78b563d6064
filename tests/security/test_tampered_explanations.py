"""Saved explanations are untrusted: any change of their files ends in an explanation that works, or in one line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy
from seewhy.errors import RecordError, UsageError
from support.array_tampering import Opened, encode, with_shape, write_zip
from support.command import run
from support.removal import with_curves
from support.tampering import tamper
from support.untrusted_files import make_network

SEEDS = 50


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two saved explanations: of a photo, and of a signal, which has an input.npz."""
    home = tmp_path_factory.mktemp("saved")
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(home / "photo.png")
    model = make_network()
    image = seewhy.explain(
        model, home / "photo.png", preprocess=seewhy.Preprocess.imagenet(16), layers="0", targets="top2"
    )
    with_curves(seewhy.trust.check(model, image))[0].save(home / "image")
    signal = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten())
    seewhy.explain(signal.eval(), torch.rand(1, 2, 20), layers="0").save(home / "signal")
    return home


def use(e: seewhy.Explanation) -> None:
    """Call everything that is derived from a loaded explanation. Only UsageError is allowed."""
    actions: list[Callable[[], object]] = [
        lambda: repr(e), e.to_dict, e.report, e.comparison, e._repr_mimebundle_, lambda: e.save("again"),
    ]  # fmt: skip
    actions += [lambda t=target: (e.measured_map(t), e.measured_overlay(t)) for target in e.targets]  # type: ignore[misc]
    for method, target, layer in e.maps:
        for function in (e.map, e.overlay, e.box, e.flags, e.heatmap):
            actions.append(lambda f=function, m=method, t=target, n=layer: f(method=m, target=t, layer=n))  # type: ignore[misc]
        actions.append(lambda m=method, t=target: e.contact_sheet(m, t))  # type: ignore[misc]
    for action in actions:
        with contextlib.suppress(UsageError):
            action()


def test_tampered_files_end_in_one_line_or_work(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long runs with more seeds: import `support.tampering.tamper`."""
    monkeypatch.chdir(tmp_path)
    refused = 0
    for seed in range(SEEDS):
        folder = tmp_path / str(seed)
        shutil.copytree(saved / ("image", "signal")[seed % 2], folder)
        change = tamper(folder, Random(seed))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on overflows in huge maps
                use(seewhy.load_explanation(folder))
        except UsageError as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) < 1000, (seed, change)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {change}") from error
        assert not Path("unpickled").exists()
    assert SEEDS // 2 < refused < SEEDS


def edit(folder: Path, **fields: Any) -> None:
    path = folder / "explanation.json"
    record = json.loads(path.read_text("utf-8"))
    for name, value in fields.items():
        *places, last = name.split("__")
        inner: Any = record
        for place in places:
            inner = inner[int(place) if isinstance(inner, list) else place]
        inner[int(last) if isinstance(inner, list) else last] = value
    path.write_text(json.dumps(record), "utf-8")


DEEP: list[Any] = []
for _ in range(900):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"targets__0__score": "high"}, r"explanation\.json: targets\[0\]\.score: expected float \| null, got str"),
        ({"layers__0__grid": [1, 2, 3]}, r"layers\['0'\]|maps\[0\]\.shape"),
        ({"layers__0__channels": 1e9}, r"layers\['0'\]\.channels: expected int, got float"),
        ({"size": [2**40, 1]}, r"size\[0\]: expected int <= "),
        ({"size": [2**20, 2**20]}, r"size: 1,099,511,627,776 positions; the limit is"),
        ({"maps__0__layer": "other"}, r"maps\[0\]\.layer: 'other' is not one of its layers"),
        ({"maps__0__target": "\x1b[2J"}, r"maps\[0\]\.target: '\\x1b\[2J' is not one of its targets"),
        ({"maps": []}, r"maps: expected array of length >= 1"),
        ({"suggested": "other"}, r"suggested: 'other' is not one of its layers"),
        ({"files": ["../x"]}, r"files\[0\]: '\.\./x' is not a name of a file in this folder"),
        ({"requested__layers": {"last": ["other"]}}, r"requested\.layers\['last'\]: 'other' is not one of its layers"),
        ({"notes": ["a" * 3_000_000]}, r"notes\[0\]: expected str of length <= 2097152"),
        ({"view__box": [0, 0, 1e99, 1]}, r"view\.box\[2\]: expected float <= "),
        ({"view__box": [5, 5, 5, 9]}, r"view\.box: it is not a rectangle on a photo of 40 x 30 pixels"),
        ({"view__photo_size": [10, 10]}, r"photo\.jpg: it has 40 x 30 pixels, and the record describes a photo of 10 x 10"),
        ({"view__input_size": [9, 9]}, r"view\.input_size: \[9, 9\] is not the size of the input, \[16, 16\]"),
        ({"top__0__class": -1}, r"top\[0\]\.class: expected int >= 0"),
        ({"provenance__preprocess__mean": [1, 2]}, r"provenance\.preprocess\.mean: it is not a list of one or three numbers"),
        ({"provenance__x": DEEP}, r"provenance\['x'\]\[0\]"),
        ({"notes": "\ud800"}, r"notes: expected array, got str"),
        ({"layers__0__parts": [{"box": [[0, 99], [0, 16]], "mirrored": []}]}, r"layers\['0'\]\.parts\[0\]\.box: it is no"),
        (
            {"layers__0__region": {"box": [[0, 16], [0, 16]], "order": [0, 0], "mirrored": []}},
            r"region\.order: it is not an order of 2 axes",
        ),
    ],
)  # fmt: skip
def test_a_changed_field_is_named(saved: Path, tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    shutil.copytree(saved / "image", tmp_path / "run")
    edit(tmp_path / "run", **fields)
    with pytest.raises(RecordError, match=message):
        seewhy.load_explanation(tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"size": NaN}', "NaN is not a number of JSON"),
        ('{"size": 1e999}', "the number '1e999' is too large"),
        ('{"size": 1, "size": 2}', "the key 'size' appears twice"),
        (f'{{"size": {"9" * 5000}}}', "not valid JSON"),
        ("[]", r"explanation\.json: expected object, got array"),
        (" " * 40_000_000, "more than 33,554,432 bytes, the limit for this file"),
    ],
)
def test_a_record_that_is_no_strict_json_is_refused(saved: Path, tmp_path: Path, text: str, message: str) -> None:
    shutil.copytree(saved / "image", tmp_path / "run")
    (tmp_path / "run" / "explanation.json").write_text(text)
    with pytest.raises(RecordError, match=message):
        seewhy.load_explanation(tmp_path / "run")


def test_arrays_are_checked_before_they_are_decompressed(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zip bomb, objects, and other shapes and types than recorded."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved / "signal", "run")
    path, valid = Path("run/input.npz"), np.zeros((2, 20), np.float32)
    for data, message in {
        encode(np.zeros((3000, 3000), np.float32)): "larger than the record lists|its shape is",
        encode(np.full((2, 20), Opened(), object)): r"expected float32 values, got '\|O'|not an array",
        encode(valid.astype(np.float64)): "expected float32 values, got '<f8'",
        encode(valid[:, :10]): r"its shape is \[2, 10\], and the record lists \[any, 20\]",
        with_shape(valid, "(100000, 20)"): "its size is not that of its shape",
        with_shape(valid, "(2, 20)", "<f4, O"): "expected float32",
        b"": "it is not an array that seewhy wrote",
    }.items():
        write_zip(path, [("input.npy", data)])
        with pytest.raises(RecordError, match=rf"input\.npz: .*({message})"):
            seewhy.load_explanation("run")
    write_zip(path, [("input.npy", encode(valid))] * 2)
    with pytest.raises(RecordError, match="an array is contained twice"):
        seewhy.load_explanation("run")
    write_zip(path, [("input.npy", encode(np.asfortranarray(np.arange(40, dtype=np.float32).reshape(2, 20))))])
    loaded = seewhy.load_explanation("run").inputs
    assert loaded is not None and loaded[0, 1, 0] == 20 and not Path("unpickled").exists()


def test_links_out_of_the_folder_are_refused(saved: Path, tmp_path: Path) -> None:
    """A saved folder must not show files from elsewhere. A link inside of it is read."""
    for name in ("explanation.json", "maps.npz", "photo.jpg"):
        folder = tmp_path / name
        shutil.copytree(saved / "image", folder)
        (folder / name).unlink()
        (folder / name).symlink_to(saved / "image" / name)
        with pytest.raises(RecordError, match=f"{name}: it is a symbolic link out of its folder"):
            seewhy.load_explanation(folder)
        (folder / name).unlink()
        (folder / name).symlink_to(name)
        with pytest.raises(RecordError, match=name):  # to itself
            seewhy.load_explanation(folder)
    os.unlink(folder / name)
    (folder / name).symlink_to("other.jpg")
    shutil.copy(saved / "image" / name, folder / "other.jpg")
    assert seewhy.load_explanation(folder).images


def test_a_photo_with_hundreds_of_scans_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "image", tmp_path / "run")
    path = tmp_path / "run" / "photo.jpg"
    with Image.open(path) as photo:
        photo.convert("RGB").save(path, progressive=True)
    data = path.read_bytes()
    start = data.rindex(b"\xff\xda")
    path.write_bytes(data[:-2] + data[start:-2] * 300 + data[-2:])
    with pytest.raises(RecordError, match=r"photo\.jpg: a JPEG with more than 200 scans"):
        seewhy.load_explanation(tmp_path / "run")


def test_layers_named_with_a_bar_can_be_loaded(tmp_path: Path) -> None:
    """The names in maps.npz are joined with "|", which the name of a module may contain."""
    network = torch.nn.Sequential()
    network.add_module("a|b", torch.nn.Conv2d(3, 2, 3))
    network.add_module("pool", torch.nn.AdaptiveAvgPool2d(1))
    network.add_module("flat", torch.nn.Flatten())
    e = seewhy.explain(network.eval(), torch.rand(1, 3, 8, 8), layers="a|b")
    e.save(tmp_path)
    assert torch.equal(seewhy.load_explanation(tmp_path).map(), e[0].map())


def test_the_command_reports_a_damaged_folder_in_one_line(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(saved / "image", tmp_path / "run")
    edit(tmp_path / "run", targets__0__score="high")
    code, out, err = run(capsys, "report", str(tmp_path / "run"))
    assert code == 2 and not out and len(err.splitlines()) == 1 and "targets[0].score: expected float" in err


@pytest.mark.parametrize("method", ["guidedgradcam", "cameras", "sess", "fullgrad", "gradcam"])
def test_maps_of_every_size_can_be_loaded(method: str, tmp_path: Path) -> None:
    """Maps of some methods have the size of the input, not of the layer's grid: they were saved and then refused."""
    e = seewhy.explain(make_network(), torch.rand(1, 3, 24, 24), methods=method, targets=0)
    e.save(tmp_path)
    loaded = seewhy.load_explanation(tmp_path)
    assert [tuple(one.shape) for one in loaded.maps.values()] == [tuple(one.shape) for one in e.maps.values()]


def test_a_long_command_can_be_loaded(saved: Path, tmp_path: Path) -> None:
    """A thousand class names on the command line are recorded."""
    shutil.copytree(saved / "image", tmp_path / "run")
    record = json.loads((tmp_path / "run/explanation.json").read_text("utf-8"))
    record["provenance"]["command"] = "seewhy photo.png --labels " + ",".join(["name"] * 30_000)
    (tmp_path / "run/explanation.json").write_text(json.dumps(record), "utf-8")
    assert seewhy.load_explanation(tmp_path / "run").report().startswith("<!doctype html>")


def test_files_of_the_caller_can_be_saved_again(saved: Path, tmp_path: Path) -> None:
    """Files passed as `also` carry no mark: only those that this folder's record lists may be replaced by them."""
    e = seewhy.load_explanation(saved / "image")
    for content in (b"one", b"two"):
        e.save(tmp_path / "run", also={"notes.txt": content})
    assert (tmp_path / "run/notes.txt").read_bytes() == b"two"
    (tmp_path / "run/other.txt").write_text("mine")
    with pytest.raises(UsageError, match="did not write it"):
        e.save(tmp_path / "run", also={"other.txt": b"three"})
