"""Reading runs: rows and maps compared with `explain`, and exports decoded independently of the code that writes them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

import seewhy
from seewhy.bulk.bulk_run import BulkRun
from seewhy.bulk.export import export, run_lengths
from seewhy.bulk.job import run_job
from seewhy.bulk.row_values import LAYER_COLUMNS, decode_map, read_footer, view_from_row
from seewhy.bulk.settings import BulkSettings, Execution
from seewhy.errors import ChoiceError, UnknownName, UsageError
from seewhy.images.view import View
from seewhy.methods import GradCAM

CAT, CUP = "Egyptian cat", "espresso"
# In the order of the run. Names that differ only in case or in "?" collide on some file systems.
GOOD = [
    f"{CAT}/CHELSEA_.png", f"{CAT}/chelsea.png", f"{CAT}/chelsea?.png", f"{CAT}/chelsea_.png",
    f"{CUP}/cat_espresso.png", f"{CUP}/deep/coffee.png",
]  # fmt: skip
BAD = {
    f"{CUP}/broken.jpg": "not an image",
    "unknown label/x.png": "its label 'unknown label' is not a class of the model",
}
COLUMNS = [
    "id", "path", "sha256", "bytes", "width", "height", "view", "input", "label", "label_class", "label_name",
    "predicted", "predicted_name", "confidence", "target", "target_key", "target_class", "target_name", "score",
    "probability", "method", "layers", "shapes", "lo", "hi", "maps", "positive", "peak_x", "peak_y", "center_x",
    "center_y", "spread", "border", "corner", "inside", "flags", "error",
]  # fmt: skip
METHODS, TARGETS = ("gradcam", "layercam"), ("top1", "top2", "label")
CHOICE = {"method": "gradcam", "target": "label"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small convolutions with several threads take ten times as long if other processes use the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    samples = {name: Image.open(seewhy.sample(name)).convert("RGB") for name in ("cat_espresso", "chelsea", "coffee")}
    chelsea = samples["chelsea"]
    images = {
        GOOD[0]: chelsea.resize((90, 130)), GOOD[1]: chelsea, GOOD[2]: chelsea.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        GOOD[3]: chelsea.resize((150, 100)), GOOD[4]: samples["cat_espresso"], GOOD[5]: samples["coffee"],
        "unknown label/x.png": chelsea,
    }  # fmt: skip
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    (folder / CUP / "broken.jpg").write_bytes(b"no image")
    return folder


def explain_bulk(embedded: seewhy.LoadedModel, inputs: Path, out: Path, **settings: Any) -> BulkRun:
    execution = Execution(workers=0, batch_size=4, part_size=3)
    run_job(embedded, [str(inputs)], out, BulkSettings(**settings), execution, quiet=True)
    return BulkRun.read(out)


@pytest.fixture(scope="module")
def run(embedded: seewhy.LoadedModel, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> BulkRun:
    out = tmp_path_factory.mktemp("run") / "out"
    layers = ("suggested", "blocks.6.*", "blocks.4.0.conv_pw")
    return explain_bulk(embedded, photos, out, methods=METHODS, layers=layers, targets=("top2", "label"))


@pytest.fixture(scope="module")
def padded(embedded: seewhy.LoadedModel, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> BulkRun:
    """One target, method and layer of one image, padded to the input size, stored as float16."""
    return explain_bulk(
        embedded, photos / GOOD[4], tmp_path_factory.mktemp("run") / "padded", store="float16", fit="pad"
    )


@pytest.fixture(scope="module")
def explained(embedded: seewhy.LoadedModel, photos: Path, run: BulkRun) -> dict[str, seewhy.Explanation]:
    """Each image explained on its own, for the two label classes and the top two."""
    return {
        name: seewhy.explain(
            embedded, photos / name, methods=list(METHODS), layers=list(run.layers), targets=[CAT, CUP, "top2"]
        )
        for name in GOOD
    }


def label_of(name: str) -> str:
    return name.split("/")[0]


def close(actual: NDArray[Any], expected: NDArray[Any], hi: float, lo: float) -> bool:
    """Return True if two maps differ by at most half a level, plus the last digits that depend on the batch size."""
    bound = np.where(expected > 0, hi / 127, -lo / 128) / 2
    return bool((abs(actual - expected) <= bound * 1.001 + 2e-4 * max(hi, -lo)).all())


# Rows


def test_every_image_target_and_method_has_a_row(run: BulkRun) -> None:
    rows = run.table.select(["id", "target", "method", "error"]).to_pylist()
    order = sorted([*GOOD, *BAD])
    expected = [
        (name, target, method)
        for name in order
        for target, method in ([(q, m) for q in TARGETS for m in METHODS] if name in GOOD else [(None, None)])
    ]
    assert [(row["id"], row["target"], row["method"]) for row in rows] == expected
    assert len(run) == len(expected) == 38 and run.complete and len(run.files) == 3
    assert repr(run) == f"<BulkRun {run.folder}: 38 rows, complete>"


def test_parts_are_plain_parquet_files(run: BulkRun) -> None:
    ids = []
    for part, path in enumerate(run.files):
        table = parquet.read_table(path)
        assert table.column_names == COLUMNS
        assert read_footer(path)["part"] == part and read_footer(path)["settings"] == run.settings
        ids += list(dict.fromkeys(table["id"].to_pylist()))
    assert ids == sorted([*GOOD, *BAD])
    for name in ("view", "lo", "hi", *LAYER_COLUMNS[4:-1]):
        assert str(run.table.schema.field(name).type).startswith("list<") and "float" in str(
            run.table.schema.field(name).type
        )


def test_columns_of_an_image(run: BulkRun, photos: Path) -> None:
    for row in run.table.filter(pc.field("target") == "top1").to_pylist():
        content = (photos / row["id"]).read_bytes()
        assert row["path"] == str(photos / row["id"]) and Path(row["path"]).is_file()
        assert (row["sha256"], row["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert row["label"] == label_of(row["id"]) and row["label_class"] == {CAT: 285, CUP: 967}[row["label"]]
        with Image.open(photos / row["id"]) as image:
            assert (row["width"], row["height"]) == image.size
        assert row["inside"] == [None] * len(row["layers"])  # no boxes or masks


def test_failed_images_have_a_reason(run: BulkRun, photos: Path) -> None:
    failed = {one["id"]: one for one in run.failed}
    assert list(failed) == sorted(BAD)
    for name, reason in BAD.items():
        assert reason in failed[name]["error"] and failed[name]["path"] == str(photos / name)
    rows = run.table.filter(pc.is_valid(run.table["error"])).to_pylist()
    for row in rows:
        assert all(row[name] is None for name in COLUMNS[COLUMNS.index("predicted") : -1])
        assert row["sha256"] and row["bytes"]


def test_targets_match_explain(run: BulkRun, explained: dict[str, seewhy.Explanation]) -> None:
    for row in run.table.filter(pc.is_null(run.table["error"])).to_pylist():
        e = explained[row["id"]]
        index, name, chance = e.top(1)[0]
        assert (row["predicted"], row["predicted_name"]) == (index, name)
        assert row["confidence"] == pytest.approx(chance, rel=1e-3)
        expected = {"top1": e.top(2)[0], "top2": e.top(2)[1]}.get(row["target"])
        assert e.logits is not None
        if expected is None:
            assert row["target_name"] == label_of(row["id"]) and row["target_class"] == row["label_class"]
        else:
            assert (row["target_class"], row["target_name"]) == expected[:2]
        assert row["target_key"] == str(row["target_class"])
        assert row["score"] == pytest.approx(float(e.logits[0, row["target_class"]]), rel=1e-3)
        assert row["probability"] == pytest.approx(float(e.probabilities[0, row["target_class"]]), rel=1e-2)
        view = view_from_row(row)
        assert view.photo_size == e.view.photo_size and view.input_size == e.view.input_size
        assert view.box == pytest.approx(e.view.box, abs=1e-4)


def test_maps_match_explain(run: BulkRun, explained: dict[str, seewhy.Explanation]) -> None:
    for row in run.table.filter(pc.is_null(run.table["error"])).to_pylist():
        assert row["layers"] == list(run.layers)
        for place, layer in enumerate(row["layers"]):
            expected = explained[row["id"]].map(row["method"], row["target_key"], layer).numpy()
            assert row["shapes"][place] == list(expected.shape)
            lo, hi = row["lo"][place], row["hi"][place]
            top = max(float(abs(expected).max()), 1e-12)
            assert (lo, hi) == pytest.approx(
                (min(0.0, float(expected.min())), max(0.0, float(expected.max()))), abs=2e-4 * top
            )
            assert close(decode_map(row, layer, run.store), expected, hi, lo), (row["id"], row["method"], layer)


# Selection


def test_layers_are_in_execution_order(embedded: seewhy.LoadedModel, run: BulkRun) -> None:
    done: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: done.append(name))
        for name, module in embedded.module.named_modules()
    ]
    embedded.module(torch.zeros(1, 3, *embedded.preprocess.size))
    for hook in hooks:
        hook.remove()
    assert list(run.layers) == [name for name in done if name in run.layers] and len(run.layers) >= 5
    assert "blocks.4.0.conv_pw" in run.layers and any(name.startswith("blocks.6.") for name in run.layers)
    assert run.settings["layers"] == ["suggested", "blocks.6.*", "blocks.4.0.conv_pw"]  # as given, in another order


def test_maps_of_one_layer(run: BulkRun, explained: dict[str, seewhy.Explanation]) -> None:
    ids, maps = run.maps("layercam", "label", "blocks.4.0.conv_pw")
    assert ids == GOOD and maps.dtype == np.float32
    for name, actual in zip(ids, maps, strict=True):
        expected = explained[name].map("layercam", label_of(name), "blocks.4.0.conv_pw").numpy()
        assert close(actual, expected, max(0, expected.max()), min(0, expected.min()))
    last = run.maps(**CHOICE)[1]
    np.testing.assert_array_equal(last, run.maps(**CHOICE, layer=run.layers[-1])[1])
    assert last.shape[1:] != maps.shape[1:]


def chosen_rows(run: BulkRun) -> list[dict[str, Any]]:
    """Return the rows of CHOICE from the table."""
    choice = (CHOICE["method"], CHOICE["target"])
    return [row for row in run.table.to_pylist() if (row["method"], row["target"]) == choice and row["error"] is None]


def test_select_and_rows(run: BulkRun) -> None:
    assert run.select("gradcam", "top2") == ("gradcam", "top2", run.layers[-1])
    good = list(run.rows("gradcam", "top2"))
    assert [row["id"] for row in good] == GOOD
    assert {row["method"] for row in good} == {"gradcam"} and {row["target"] for row in good} == {"top2"}
    assert run.select("gradcam", "top2", run.layers[0])[2] == run.layers[0]
    assert run.select("Grad-CAM", "TOP2") == run.select(GradCAM(), "top2") == run.select("gradcam", "top2")


@pytest.mark.parametrize(
    ("choice", "close", "words"),
    [
        ({"method": "gradcan", "target": "top1"}, ["gradcam"], "no method 'gradcan'.*did you mean 'gradcam'"),
        (
            {"method": "gradcam", "target": "top3"},
            ["top2", "top1"],
            "no target 'top3'.*This run has top1, top2, label",
        ),
        (
            {**CHOICE, "layer": "blocks.4.0.conv_pv"},
            ["blocks.4.0.conv_pw"],
            "no layer .*did you mean 'blocks.4.0.conv_pw'",
        ),
        ({**CHOICE, "layer": "x"}, [], "no layer 'x'. This run has blocks"),
        ({**CHOICE, "layer": ""}, [], "no layer ''"),
    ],
)
def test_unknown_names(choice: dict[str, str], close: list[str], words: str, run: BulkRun) -> None:
    for function in (run.select, run.maps, run.to_pandas):
        with pytest.raises(UnknownName, match=words) as caught:
            function(**choice)
        assert caught.value.close_matches[: len(close)] == close


def test_several_choices_raise(run: BulkRun) -> None:
    with pytest.raises(ChoiceError, match="2 methods: choose one, method='gradcam' or layercam"):
        run.maps()
    with pytest.raises(ChoiceError, match="3 targets: choose one") as caught:
        run.select("gradcam")
    assert caught.value.choices == list(TARGETS)


def test_pandas_has_the_statistics_of_one_layer(run: BulkRun) -> None:
    pandas = pytest.importorskip("pandas")
    frame = run.to_pandas(**CHOICE, layer="blocks.4.0.conv_pw")
    assert isinstance(frame, pandas.DataFrame) and frame["id"].tolist() == GOOD
    assert set(frame.columns) == set(COLUMNS) - {"layers", "shapes", "maps", "error"} | {"layer"}
    rows = {row["id"]: row for row in chosen_rows(run)}
    for record in frame.to_dict("records"):
        row = rows[record["id"]]
        place = row["layers"].index("blocks.4.0.conv_pw")
        assert record["layer"] == "blocks.4.0.conv_pw" and record["score"] == row["score"]
        for name in ("lo", "hi", "positive", "peak_x", "spread", "border"):
            assert record[name] == row[name][place], name
        assert record["flags"] == row["flags"][place]


def test_run_with_one_target_needs_no_choice(padded: BulkRun, photos: Path, embedded: seewhy.LoadedModel) -> None:
    assert len(padded) == 1 and padded.store == "float16" and padded.failed == []
    e = seewhy.explain(embedded, photos / GOOD[4], fit="pad")
    ids, maps = padded.maps()
    assert ids == [str(photos / GOOD[4])] and padded.layers == e.layers
    expected = e.map().numpy()
    np.testing.assert_allclose(maps[0], expected, atol=1e-3 * abs(expected).max())
    assert padded.to_pandas()["target_name"].tolist() == [e.top(1)[0][1]]


# Unfinished runs


@pytest.fixture
def copied(run: BulkRun, tmp_path: Path) -> Path:
    shutil.copytree(run.folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_run_with_a_missing_part(run: BulkRun, copied: Path) -> None:
    BulkRun.read(copied).files[1].unlink()
    part = BulkRun.read(copied)
    assert not part.complete and len(part.files) == 2 and "2 of 3 parts" in repr(part)
    kept = set(parquet.read_table(run.files[1])["id"].to_pylist())
    assert set(part.table["id"].to_pylist()) == {*GOOD, *BAD} - kept
    assert part.maps(**CHOICE)[0] == [name for name in GOOD if name not in kept]


def test_other_files_are_ignored(run: BulkRun, copied: Path) -> None:
    name = run.files[0].name
    shutil.copy(run.files[0], copied / name.replace(name.split(".")[1], "0123456789ab"))  # of another job
    (copied / f".{name}.1-2.tmp").write_bytes(b"torn")
    (copied / "notes.parquet").write_bytes(b"mine")
    actual = BulkRun.read(copied)
    assert [path.name for path in actual.files] == [path.name for path in run.files] and len(actual) == len(run)


def test_run_without_finished_parts(copied: Path) -> None:
    for path in BulkRun.read(copied).files:
        path.unlink()
    begun = BulkRun.read(str(copied))
    assert not begun.complete and len(begun) == 0 and begun.failed == [] and begun.layers == ()
    assert list(begun.batches()) == [] and begun.table.column_names == COLUMNS and "0 of 3 parts" in repr(begun)
    with pytest.raises(UsageError, match="this run contains no explained images"):
        begun.maps()


def test_run_in_which_all_images_failed(embedded: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="targets='label': none of the 1 images has a label"):
        explain_bulk(embedded, photos / "unknown label", tmp_path / "none", targets=("label",))
    shutil.copytree(photos / "unknown label", tmp_path / "photos" / "unknown label")
    failed = explain_bulk(embedded, tmp_path / "photos", tmp_path / "out", targets=("label",))
    assert ["is not a class" in one["error"] for one in failed.failed] == [True] and failed.layers == ()
    for kind in ("npz", "png", "coco"):
        with pytest.raises(UsageError, match="this run contains no explained images"):
            export(failed, tmp_path / "files", kind)


def test_folders_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a bulk run"):
        BulkRun.read(tmp_path)
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        BulkRun.read(tmp_path)
    (tmp_path / "job.json").write_text('{"format": 99}')
    with pytest.raises(UsageError, match="another version of seewhy"):
        BulkRun.read(tmp_path)


def test_batches_with_columns_and_a_filter(run: BulkRun) -> None:
    some = list(run.batches(["id", "target_name"], (pc.field("target") == "label") & (pc.field("method") == "gradcam")))
    rows = [row for batch in some for row in batch.to_pylist()]
    assert rows == [{"id": name, "target_name": label_of(name)} for name in GOOD]


# Exports


def test_npz(run: BulkRun, tmp_path: Path) -> None:
    assert export(run, tmp_path / "out", "npz", **CHOICE, layer=run.layers[0]) == len(GOOD)
    with np.load(tmp_path / "out" / "maps.npz", allow_pickle=False) as actual:
        assert actual.files == ["ids", "maps"] and actual["ids"].tolist() == GOOD
        np.testing.assert_array_equal(actual["maps"], run.maps(**CHOICE, layer=run.layers[0])[1])
        assert actual["maps"].min() < 0 < actual["maps"].max()  # signed


def levels(path: Path) -> NDArray[Any]:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


NAMES = {  # files of the PNG export; names that collide without regard to case get a prefix
    GOOD[0]: "Egyptian_cat/CHELSEA_.png.png", GOOD[1]: "Egyptian_cat/chelsea.png.png",
    GOOD[2]: "Egyptian_cat/chelsea_.png_2.png", GOOD[3]: "Egyptian_cat/chelsea_.png_3.png",
    GOOD[4]: "espresso/cat_espresso.png.png", GOOD[5]: "espresso/deep/coffee.png.png",
}  # fmt: skip


def test_png(run: BulkRun, explained: dict[str, seewhy.Explanation], tmp_path: Path) -> None:
    assert export(run, tmp_path, "png", **CHOICE) == len(GOOD)
    there = {path.relative_to(tmp_path / "maps").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert there == set(NAMES.values())
    for name, file in NAMES.items():
        expected = explained[name].on_photo("gradcam", label_of(name), run.layers[-1])
        actual = levels(tmp_path / "maps" / file) / 255
        assert actual.shape == expected.shape
        # half a gray level, plus half a level of the stored map in the value and in the maximum
        assert abs(actual - expected).max() <= 1 / 510 + 1 / 127 + 1e-3, name
        assert actual.max() > 0.95
        assert (actual[expected == 0] <= 1 / 255).all()


def test_png_of_a_padded_photo(padded: BulkRun, photos: Path, embedded: seewhy.LoadedModel, tmp_path: Path) -> None:
    export(padded, tmp_path, "png")
    (file,) = tmp_path.rglob("*.png")
    assert file.resolve().is_relative_to(tmp_path)  # although its id is an absolute path
    expected = seewhy.explain(embedded, photos / GOOD[4], fit="pad").on_photo()
    np.testing.assert_allclose(levels(file) / 255, expected, atol=1 / 510 + 2e-3)


def decode_run_lengths(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode uncompressed run lengths as the COCO API describes them: column by column, starting with zeros."""
    height, width = size
    mask = np.zeros((height, width), bool)
    place, value = 0, False
    for count in counts:
        for _ in range(count):
            mask[place % height, place // height] = value
            place += 1
        value = not value
    assert place == height * width
    return mask


@pytest.mark.parametrize(
    "mask", ["0", "1", "01", "10", "0110/1001", "000/111/010", "111/111", "000/000", "1/0/1/1", "0011"]
)
def test_run_lengths(mask: str) -> None:
    values = np.array([[cell == "1" for cell in row] for row in mask.split("/")])
    counts = run_lengths(values)
    np.testing.assert_array_equal(decode_run_lengths(counts, values.shape), values)
    assert all(counts[1:]) and json.dumps(counts)  # only the first may be 0


@pytest.mark.parametrize("threshold", [0.5, 0.2, 1.0])
def test_coco(threshold: float, run: BulkRun, explained: dict[str, seewhy.Explanation], tmp_path: Path) -> None:
    assert export(run, tmp_path, "coco", **CHOICE, threshold=threshold) == len(GOOD)
    actual = json.loads((tmp_path / "annotations.json").read_text("utf-8"))
    assert [one["file_name"] for one in actual["images"]] == GOOD
    assert actual["categories"] == [{"id": 285, "name": CAT}, {"id": 967, "name": CUP}]
    assert len({one["id"] for one in actual["annotations"]}) == len(actual["annotations"]) == len(GOOD)
    images = {one["id"]: one for one in actual["images"]}
    for one in actual["annotations"]:
        image = images[one["image_id"]]
        name = image["file_name"]
        e = explained[name]
        assert one["segmentation"]["size"] == [image["height"], image["width"]] == list(e.view.photo_size)
        mask = decode_run_lengths(one["segmentation"]["counts"], e.view.photo_size)
        assert one["category_id"] == {CAT: 285, CUP: 967}[label_of(name)]
        assert one["score"] == pytest.approx(float(e.probabilities[0, one["category_id"]]), rel=1e-2)
        choice = {"method": "gradcam", "target": label_of(name), "layer": run.layers[-1]}
        heat, expected = e.on_photo(**choice), e.mask(threshold, **choice)
        differ = mask != expected
        assert (abs(heat - threshold * heat.max())[differ] <= 2 / 127).all(), name  # only near the threshold
        assert differ.mean() < 0.05 and (mask & expected).any()
        rows, columns = np.nonzero(mask)
        left, top = int(columns.min()), int(rows.min())
        assert one["bbox"] == [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]
        assert one["area"] == int(mask.sum()) and one["iscrowd"] == 1


def test_coco_of_an_empty_heatmap(run: BulkRun, copied: Path, tmp_path: Path) -> None:
    path = BulkRun.read(copied).files[0]
    table = parquet.read_table(path)
    blank = [row and [bytes([128]) * len(cells) for cells in row] for row in table["maps"].to_pylist()]
    place = table.column_names.index("maps")
    parquet.write_table(
        table.set_column(place, table.schema.field("maps"), pa.array(blank, table.schema.field("maps").type)), path
    )
    blanked = BulkRun.read(copied)
    assert export(blanked, tmp_path / "coco", "coco", **CHOICE) == len(GOOD)
    actual = json.loads((tmp_path / "coco" / "annotations.json").read_text("utf-8"))
    assert len(actual["images"]) == len(GOOD) and [one["image_id"] for one in actual["annotations"]] == [4, 5, 6]
    export(blanked, tmp_path / "png", "png", **CHOICE)
    assert not levels(tmp_path / "png" / "maps" / NAMES[GOOD[1]]).any()


def test_fiftyone(run: BulkRun, photos: Path, tmp_path: Path) -> None:
    assert export(run, tmp_path, "fiftyone", **CHOICE) == len(GOOD)
    samples = json.loads((tmp_path / "samples.json").read_text("utf-8"))["samples"]
    rows = chosen_rows(run)
    for name, sample, row in zip(GOOD, samples, rows, strict=True):
        assert sample["filepath"] == str(photos / name) and sample["label"] == label_of(name)
        assert sample["heatmap"] == {"map_path": f"maps/{NAMES[name]}", "range": [0, 255]}
        assert levels(tmp_path / sample["heatmap"]["map_path"]).shape == (row["height"], row["width"])
        assert (sample["predicted"], sample["confidence"]) == (row["predicted_name"], row["confidence"])


@pytest.mark.parametrize(
    ("kind", "more", "error", "words"),
    [
        ("pngs", {}, UnknownName, "no kind of export 'pngs'.*did you mean 'png'"),
        ("coco", {"threshold": 0.0}, UsageError, "above 0 and at most 1"),
        ("coco", {"threshold": 1.5}, UsageError, "above 0 and at most 1"),
        ("coco", {"threshold": float("nan")}, UsageError, "above 0 and at most 1"),
        ("png", {"method": None}, ChoiceError, "2 methods"),
        ("png", {"layer": "blocks"}, UnknownName, "no layer 'blocks'"),
    ],
)
def test_invalid_exports(
    kind: str, more: dict[str, Any], error: type[Exception], words: str, run: BulkRun, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        export(run, tmp_path / "out", kind, **{**CHOICE, **more})
    assert not (tmp_path / "out").exists()


def test_view_from_row() -> None:
    row = {"view": [1.5, -2.0, 30.0, 40.0], "input": [24, 32], "width": 50, "height": 60}
    assert view_from_row(row) == View((60, 50), (24, 32), (1.5, -2.0, 30.0, 40.0))
