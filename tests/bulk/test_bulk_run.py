"""A run read back: its rows and maps against `explain`, and each export decoded by other means than those that wrote it."""

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
from seewhy.bulk.bulk_run import PER_LAYER, BulkRun, decode_map, read_footer, view_from_row
from seewhy.bulk.export import export, run_lengths
from seewhy.bulk.job import run_job
from seewhy.bulk.plan import BulkSettings
from seewhy.bulk.worker import Resources
from seewhy.errors import ChoiceError, UnknownName, UsageError
from seewhy.images.view import View
from seewhy.methods import GradCAM

CAT, CUP = "Egyptian cat", "espresso"
# In the order of the run. Two names are the same to a file system that takes neither "?" nor capitals for another.
GOOD = [
    f"{CAT}/CHELSEA_.png", f"{CAT}/chelsea.png", f"{CAT}/chelsea?.png", f"{CAT}/chelsea_.png",
    f"{CUP}/cat_espresso.png", f"{CUP}/deep/coffee.png",
]  # fmt: skip
BAD = {f"{CUP}/broken.jpg": "not an image", "unheard of/x.png": "its label 'unheard of' is no class of the model"}
COLUMNS = [
    "id", "path", "sha256", "bytes", "width", "height", "view", "input", "label", "label_class", "label_name",
    "predicted", "predicted_name", "confidence", "target", "target_key", "target_class", "target_name", "score",
    "probability", "method", "layers", "shapes", "lo", "hi", "maps", "positive", "peak_x", "peak_y", "center_x",
    "center_y", "spread", "border", "corner", "inside", "flags", "error",
]  # fmt: skip
METHODS, ASKED = ("gradcam", "layercam"), ("top1", "top2", "label")
CHOICE = {"method": "gradcam", "target": "label"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of small convolutions wait for each other where other processes have the cores: ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    samples = {name: Image.open(seewhy.sample(name)).convert("RGB") for name in ("cat_espresso", "chelsea", "coffee")}
    chelsea = samples["chelsea"]
    made = {
        GOOD[0]: chelsea.resize((90, 130)), GOOD[1]: chelsea, GOOD[2]: chelsea.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        GOOD[3]: chelsea.resize((150, 100)), GOOD[4]: samples["cat_espresso"], GOOD[5]: samples["coffee"],
        "unheard of/x.png": chelsea,
    }  # fmt: skip
    for name, picture in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)
    (folder / CUP / "broken.jpg").write_bytes(b"no picture")
    return folder


def job(embedded: seewhy.LoadedModel, given: Path, out: Path, **asked: Any) -> BulkRun:
    settings = {"means": Resources(workers=0), "batch": 4, "part_size": 3, "quiet": True}
    run_job(embedded, [str(given)], out, BulkSettings(**asked), **settings)
    return BulkRun.read(out)


@pytest.fixture(scope="module")
def run(embedded: seewhy.LoadedModel, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> BulkRun:
    out = tmp_path_factory.mktemp("run") / "out"
    layers = ("suggested", "blocks.6.*", "blocks.4.0.conv_pw")
    return job(embedded, photos, out, methods=METHODS, layers=layers, targets=("top2", "label"))


@pytest.fixture(scope="module")
def padded(embedded: seewhy.LoadedModel, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> BulkRun:
    """One question, method and layer of one picture, all of which the network saw, kept as halves."""
    return job(embedded, photos / GOOD[4], tmp_path_factory.mktemp("run") / "padded", store="float16", fit="pad")


@pytest.fixture(scope="module")
def explained(embedded: seewhy.LoadedModel, photos: Path, run: BulkRun) -> dict[str, seewhy.Explanation]:
    """Each picture explained alone, for the two classes that pictures are labelled with."""
    return {
        name: seewhy.explain(
            embedded, photos / name, methods=list(METHODS), layers=list(run.layers), targets=[CAT, CUP, "top2"]
        )
        for name in GOOD
    }


def label_of(name: str) -> str:
    return name.split("/")[0]


def close(found: NDArray[Any], expected: NDArray[Any], hi: float, lo: float) -> bool:
    """Whether a map is another up to its half levels (and the last digits of a batch)."""
    bound = np.where(expected > 0, hi / 127, -lo / 128) / 2
    return bool((abs(found - expected) <= bound * 1.001 + 2e-4 * max(hi, -lo)).all())


# Rows


def test_every_picture_question_and_method_has_a_row(run: BulkRun) -> None:
    rows = run.table.select(["id", "target", "method", "error"]).to_pylist()
    order = sorted([*GOOD, *BAD])
    expected = [
        (name, question, method)
        for name in order
        for question, method in ([(q, m) for q in ASKED for m in METHODS] if name in GOOD else [(None, None)])
    ]
    assert [(row["id"], row["target"], row["method"]) for row in rows] == expected
    assert len(run) == len(expected) == 38 and run.complete and len(run.files) == 3
    assert repr(run) == f"<Run {run.folder}: 38 rows, complete>"


def test_a_part_is_a_plain_parquet_file(run: BulkRun) -> None:
    ids = []
    for part, path in enumerate(run.files):
        table = parquet.read_table(path)
        assert table.column_names == COLUMNS
        assert read_footer(path)["part"] == part and read_footer(path)["settings"] == run.settings
        ids += list(dict.fromkeys(table["id"].to_pylist()))
    assert ids == sorted([*GOOD, *BAD])
    for name in ("view", "lo", "hi", *PER_LAYER[4:-1]):
        assert str(run.table.schema.field(name).type).startswith("list<") and "float" in str(
            run.table.schema.field(name).type
        )


def test_what_is_known_of_a_picture(run: BulkRun, photos: Path) -> None:
    for row in run.table.filter(pc.field("target") == "top1").to_pylist():
        content = (photos / row["id"]).read_bytes()
        assert row["path"] == str(photos / row["id"]) and Path(row["path"]).is_file()
        assert (row["sha256"], row["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert row["label"] == label_of(row["id"]) and row["label_class"] == {CAT: 285, CUP: 967}[row["label"]]
        with Image.open(photos / row["id"]) as picture:
            assert (row["width"], row["height"]) == picture.size
        assert row["inside"] == [None] * len(row["layers"])  # no boxes were given


def test_failed_pictures_say_why(run: BulkRun, photos: Path) -> None:
    failed = {one["id"]: one for one in run.failed}
    assert list(failed) == sorted(BAD)
    for name, reason in BAD.items():
        assert reason in failed[name]["error"] and failed[name]["path"] == str(photos / name)
    rows = run.table.filter(pc.is_valid(run.table["error"])).to_pylist()
    for row in rows:
        assert all(row[name] is None for name in COLUMNS[COLUMNS.index("predicted") : -1])
        assert row["sha256"] and row["bytes"]


def test_answers_are_those_of_explain(run: BulkRun, explained: dict[str, seewhy.Explanation]) -> None:
    for row in run.table.filter(pc.is_null(run.table["error"])).to_pylist():
        e = explained[row["id"]]
        index, name, chance = e.top(1)[0]
        assert (row["predicted"], row["predicted_name"]) == (index, name)
        assert row["confidence"] == pytest.approx(chance, rel=1e-3)
        wanted = {"top1": e.top(2)[0], "top2": e.top(2)[1]}.get(row["target"])
        assert e.logits is not None
        if wanted is None:
            assert row["target_name"] == label_of(row["id"]) and row["target_class"] == row["label_class"]
        else:
            assert (row["target_class"], row["target_name"]) == wanted[:2]
        assert row["target_key"] == str(row["target_class"])
        assert row["score"] == pytest.approx(float(e.logits[0, row["target_class"]]), rel=1e-3)
        assert row["probability"] == pytest.approx(float(e.probabilities[0, row["target_class"]]), rel=1e-2)
        view = view_from_row(row)
        assert view.photo_size == e.view.photo_size and view.input_size == e.view.input_size
        assert view.box == pytest.approx(e.view.box, abs=1e-4)


def test_maps_of_rows_are_those_of_explain(run: BulkRun, explained: dict[str, seewhy.Explanation]) -> None:
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


# Choosing


def test_layers_are_in_the_order_of_the_network(embedded: seewhy.LoadedModel, run: BulkRun) -> None:
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
    assert run.settings["layers"] == ["suggested", "blocks.6.*", "blocks.4.0.conv_pw"]  # as asked, not in that order


def test_maps_of_one_layer(run: BulkRun, explained: dict[str, seewhy.Explanation]) -> None:
    ids, maps = run.maps("layercam", "label", "blocks.4.0.conv_pw")
    assert ids == GOOD and maps.dtype == np.float32
    for name, found in zip(ids, maps, strict=True):
        expected = explained[name].map("layercam", label_of(name), "blocks.4.0.conv_pw").numpy()
        assert close(found, expected, max(0, expected.max()), min(0, expected.min()))
    last = run.maps(**CHOICE)[1]
    np.testing.assert_array_equal(last, run.maps(**CHOICE, layer=run.layers[-1])[1])
    assert last.shape[1:] != maps.shape[1:]


def chosen_rows(run: BulkRun) -> list[dict[str, Any]]:
    """The good rows of CHOICE as they stand in the table."""
    wanted = (CHOICE["method"], CHOICE["target"])
    return [row for row in run.table.to_pylist() if (row["method"], row["target"]) == wanted and row["error"] is None]


def test_select_gives_the_rows_that_are_meant(run: BulkRun) -> None:
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
def test_what_is_not_in_the_run(choice: dict[str, str], close: list[str], words: str, run: BulkRun) -> None:
    for function in (run.select, run.maps, run.to_pandas):
        with pytest.raises(UnknownName, match=words) as caught:
            function(**choice)
        assert caught.value.close_matches[: len(close)] == close


def test_what_is_left_open(run: BulkRun) -> None:
    with pytest.raises(ChoiceError, match="2 methods: choose one, method='gradcam' or layercam"):
        run.maps()
    with pytest.raises(ChoiceError, match="3 targets: choose one") as caught:
        run.select("gradcam")
    assert caught.value.choices == list(ASKED)


def test_pandas_has_the_numbers_of_one_layer(run: BulkRun) -> None:
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


def test_a_run_of_one_question_needs_no_choice(padded: BulkRun, photos: Path, embedded: seewhy.LoadedModel) -> None:
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


def test_a_run_without_one_of_its_parts(run: BulkRun, copied: Path) -> None:
    BulkRun.read(copied).files[1].unlink()
    part = BulkRun.read(copied)
    assert not part.complete and len(part.files) == 2 and "2 of 3 parts" in repr(part)
    kept = set(parquet.read_table(run.files[1])["id"].to_pylist())
    assert set(part.table["id"].to_pylist()) == {*GOOD, *BAD} - kept
    assert part.maps(**CHOICE)[0] == [name for name in GOOD if name not in kept]


def test_what_is_no_part_of_a_run_does_not_count(run: BulkRun, copied: Path) -> None:
    name = run.files[0].name
    shutil.copy(run.files[0], copied / name.replace(name.split(".")[1], "0123456789ab"))  # of another job
    (copied / f".{name}.1-2.tmp").write_bytes(b"torn")
    (copied / "notes.parquet").write_bytes(b"mine")
    found = BulkRun.read(copied)
    assert [path.name for path in found.files] == [path.name for path in run.files] and len(found) == len(run)


def test_a_run_that_has_only_begun(copied: Path) -> None:
    for path in BulkRun.read(copied).files:
        path.unlink()
    begun = BulkRun.read(str(copied))
    assert not begun.complete and len(begun) == 0 and begun.failed == [] and begun.layers == ()
    assert list(begun.batches()) == [] and begun.table.column_names == COLUMNS and "0 of 3 parts" in repr(begun)
    with pytest.raises(UsageError, match="no picture of this run was explained"):
        begun.maps()


def test_a_run_in_which_all_pictures_failed(embedded: seewhy.LoadedModel, photos: Path, tmp_path: Path) -> None:
    failed = job(embedded, photos / "unheard of", tmp_path / "out", targets=("label",))
    assert [one["error"] for one in failed.failed] == ["no label"] and failed.layers == ()
    for kind in ("npz", "png", "coco"):
        with pytest.raises(UsageError, match="no picture of this run was explained"):
            export(failed, tmp_path / "files", kind)


def test_folders_that_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run here"):
        BulkRun.read(tmp_path)
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        BulkRun.read(tmp_path)
    (tmp_path / "job.json").write_text('{"format": 99}')
    with pytest.raises(UsageError, match="another version of seewhy"):
        BulkRun.read(tmp_path)


def test_rows_in_batches_and_by_a_condition(run: BulkRun) -> None:
    some = list(run.batches(["id", "target_name"], (pc.field("target") == "label") & (pc.field("method") == "gradcam")))
    rows = [row for batch in some for row in batch.to_pylist()]
    assert rows == [{"id": name, "target_name": label_of(name)} for name in GOOD]


# Exports


def test_npz(run: BulkRun, tmp_path: Path) -> None:
    assert export(run, tmp_path / "out", "npz", **CHOICE, layer=run.layers[0]) == len(GOOD)
    with np.load(tmp_path / "out" / "maps.npz", allow_pickle=False) as found:
        assert found.files == ["ids", "maps"] and found["ids"].tolist() == GOOD
        np.testing.assert_array_equal(found["maps"], run.maps(**CHOICE, layer=run.layers[0])[1])
        assert found["maps"].min() < 0 < found["maps"].max()  # signed


def levels(path: Path) -> NDArray[Any]:
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.array(picture)


NAMES = {  # the files, some of which would be the same one where capitals do not count
    GOOD[0]: "Egyptian_cat/CHELSEA_.png.png", GOOD[1]: "Egyptian_cat/chelsea.png.png",
    GOOD[2]: "Egyptian_cat/_chelsea_.png.png", GOOD[3]: "Egyptian_cat/__chelsea_.png.png",
    GOOD[4]: "espresso/cat_espresso.png.png", GOOD[5]: "espresso/deep/coffee.png.png",
}  # fmt: skip


def test_png(run: BulkRun, explained: dict[str, seewhy.Explanation], tmp_path: Path) -> None:
    assert export(run, tmp_path, "png", **CHOICE) == len(GOOD)
    there = {path.relative_to(tmp_path / "maps").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert there == set(NAMES.values())
    for name, file in NAMES.items():
        expected = explained[name].on_photo("gradcam", label_of(name), run.layers[-1])
        found = levels(tmp_path / "maps" / file) / 255
        assert found.shape == expected.shape
        # half a grey level, and what the cells of the map err by: half a level there, up and in the maximum
        assert abs(found - expected).max() <= 1 / 510 + 1 / 127 + 1e-3, name
        assert found.max() > 0.95
        assert (found[expected == 0] <= 1 / 255).all()


def test_png_of_a_photo_that_does_not_fill_the_input(
    padded: BulkRun, photos: Path, embedded: seewhy.LoadedModel, tmp_path: Path
) -> None:
    export(padded, tmp_path, "png")
    (file,) = tmp_path.rglob("*.png")
    assert file.resolve().is_relative_to(tmp_path)  # its id is an absolute path
    expected = seewhy.explain(embedded, photos / GOOD[4], fit="pad").on_photo()
    np.testing.assert_allclose(levels(file) / 255, expected, atol=1 / 510 + 2e-3)


def decoded(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Uncompressed run lengths as the COCO API describes them: down the columns, beginning with zeros."""
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
    np.testing.assert_array_equal(decoded(counts, values.shape), values)
    assert all(counts[1:]) and json.dumps(counts)  # only the first may be nothing


@pytest.mark.parametrize("threshold", [0.5, 0.2, 1.0])
def test_coco(threshold: float, run: BulkRun, explained: dict[str, seewhy.Explanation], tmp_path: Path) -> None:
    assert export(run, tmp_path, "coco", **CHOICE, threshold=threshold) == len(GOOD)
    found = json.loads((tmp_path / "annotations.json").read_text("utf-8"))
    assert [one["file_name"] for one in found["images"]] == GOOD
    assert found["categories"] == [{"id": 285, "name": CAT}, {"id": 967, "name": CUP}]
    assert len({one["id"] for one in found["annotations"]}) == len(found["annotations"]) == len(GOOD)
    images = {one["id"]: one for one in found["images"]}
    for one in found["annotations"]:
        image = images[one["image_id"]]
        name = image["file_name"]
        e = explained[name]
        assert one["segmentation"]["size"] == [image["height"], image["width"]] == list(e.view.photo_size)
        mask = decoded(one["segmentation"]["counts"], e.view.photo_size)
        assert one["category_id"] == {CAT: 285, CUP: 967}[label_of(name)]
        assert one["score"] == pytest.approx(float(e.probabilities[0, one["category_id"]]), rel=1e-2)
        choice = {"method": "gradcam", "target": label_of(name), "layer": run.layers[-1]}
        heat, expected = e.on_photo(**choice), e.mask(threshold, **choice)
        differ = mask != expected
        assert (abs(heat - threshold * heat.max())[differ] <= 2 / 127).all(), name  # only where it is a close call
        assert differ.mean() < 0.05 and (mask & expected).any()
        rows, columns = np.nonzero(mask)
        left, top = int(columns.min()), int(rows.min())
        assert one["bbox"] == [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]
        assert one["area"] == int(mask.sum()) and one["iscrowd"] == 1


def test_coco_of_a_map_without_heat(run: BulkRun, copied: Path, tmp_path: Path) -> None:
    path = BulkRun.read(copied).files[0]
    table = parquet.read_table(path)
    blank = [row and [bytes([128]) * len(cells) for cells in row] for row in table["maps"].to_pylist()]
    place = table.column_names.index("maps")
    parquet.write_table(
        table.set_column(place, table.schema.field("maps"), pa.array(blank, table.schema.field("maps").type)), path
    )
    spoilt = BulkRun.read(copied)
    assert export(spoilt, tmp_path / "coco", "coco", **CHOICE) == len(GOOD)
    found = json.loads((tmp_path / "coco" / "annotations.json").read_text("utf-8"))
    assert len(found["images"]) == len(GOOD) and [one["image_id"] for one in found["annotations"]] == [4, 5, 6]
    export(spoilt, tmp_path / "png", "png", **CHOICE)
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
def test_what_cannot_be_exported(
    kind: str, more: dict[str, Any], error: type[Exception], words: str, run: BulkRun, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        export(run, tmp_path / "out", kind, **{**CHOICE, **more})
    assert not (tmp_path / "out").exists()


def test_a_view_of_a_row() -> None:
    row = {"view": [1.5, -2.0, 30.0, 40.0], "input": [24, 32], "width": 50, "height": 60}
    assert view_from_row(row) == View((60, 50), (24, 32), (1.5, -2.0, 30.0, 40.0))
