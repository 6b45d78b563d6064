"""The answer of the main command: what, where, from which layer on, and the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import seewhy
from seewhy.errors import UsageError
from seewhy.explanation.answer import connected_regions, describe_chance, find_answer, name_places
from support.command import COFFEE, run


def test_json_contains_the_answer_and_the_checks(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, COFFEE, "--json", "--layers", "stages")
    record = json.loads(out)
    answer = record["answer"]
    assert code == 0 and answer["target"] == "espresso" and answer["places"] == ["in the center"]
    assert answer["layer"] == record["suggested"] == "bn2" and 0 < answer["area"] < 0.5
    assert answer["text"].startswith("espresso, ") and answer["text"].endswith(f"{answer['verdict']}.")
    assert answer["second"]["target"] == "cup" and answer["second"]["places"] == ["in the center"]
    assert [target["name"] for target in record["targets"]] == ["espresso"]  # the others are for the page
    checks = [entry["check"] for entry in record["maps"]]
    assert checks[-1]["verdict"] == answer["verdict"] and all(check["verdict"] for check in checks)


def test_no_check_skips_the_masked_passes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, COFFEE, "--no-check", "--layers", "stages")
    assert code == 0 and out.splitlines()[1].startswith("espresso, ")
    assert not any(word in out for word in ("confirmed", "inconclusive", "chance alone"))
    record = json.loads(Path("cam/coffee/explanation.json").read_text())
    assert "--no-check" in record["provenance"]["command"] and "check" not in record["maps"][0]


def test_a_model_that_cannot_be_checked_keeps_its_maps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UsageError("the model returns other scores for espresso than the explanation contains.")

    monkeypatch.setattr(seewhy.trust, "check", fail)
    code, out, _ = run(capsys, COFFEE, "--layers", "suggested")
    assert code == 0 and "note: the maps were not checked: the model returns other scores" in " ".join(out.split())
    assert Path("cam/coffee/maps.npz").exists()


def test_an_explanation_without_checks_has_an_answer_without_a_verdict(embedded: seewhy.LoadedModel) -> None:
    e = seewhy.explain(embedded, COFFEE)
    assert find_answer(e).check is None and describe_chance(e, "gradcam", e.targets[0]) == ""


@pytest.mark.parametrize(
    ("rows", "columns", "place"),
    [
        (slice(0, 5), slice(0, 5), "in the upper left"),
        (slice(0, 5), slice(13, 17), "at the top"),
        (slice(13, 17), slice(13, 17), "in the center"),
        (slice(13, 17), slice(25, 30), "on the right"),
        (slice(25, 30), slice(25, 30), "in the lower right"),
    ],
)
def test_places(rows: slice, columns: slice, place: str) -> None:
    values = np.zeros((30, 30), np.float32)
    values[rows, columns] = 1
    assert name_places(values) == (place,)


def test_two_places_are_named_in_the_order_of_their_evidence() -> None:
    values = np.zeros((30, 30), np.float32)
    values[2:6, 2:6] = 0.6
    values[22:28, 22:28] = 1
    values[15, 15] = 1  # too little to be named
    assert name_places(values) == ("in the lower right", "in the upper left")


def test_connected_regions_equal_those_of_scipy() -> None:
    from scipy import ndimage

    mask = np.random.default_rng(0).random((40, 30)) < 0.35
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    expected = {tuple(np.nonzero((labels == number).ravel())[0]) for number in range(1, count + 1)}
    found = {tuple(np.nonzero(region.ravel())[0]) for region in connected_regions(mask)}
    assert found == expected


def test_a_crop_and_the_classic_fit_are_stated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A crop may have cut the object off, and a squashed photo has other probabilities."""
    for flags, text in (
        ([], "of the photo; the rest is dimmed. To show it the entire photo: --fit squash"),
        (["--style", "classic"], "The classic style squashes the entire photo"),
    ):
        _, out, _ = run(
            capsys, COFFEE, "--layers", "bn2", "--no-check", "--out", str(tmp_path / str(len(flags))), *flags
        )
        assert text in out
    _, out, _ = run(capsys, COFFEE, "--layers", "bn2", "--no-check", "--fit", "squash", "--out", str(tmp_path / "s"))
    assert "of the photo" not in out
    _, out, _ = run(
        capsys,
        COFFEE,
        "--layers",
        "bn2",
        "--no-check",
        "--style",
        "classic",
        "--fit",
        "pad",
        "--out",
        str(tmp_path / "p"),
    )
    assert "squashes" not in out  # the entire photo, but with its own aspect ratio
