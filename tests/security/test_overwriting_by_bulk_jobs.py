"""Commands for datasets overwrite no table, no list, no image and no part of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import seewhy
from seewhy.errors import UsageError
from support.command import run
from support.untrusted_files import file_contents, make_network, save_images

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("one_load")


def test_a_summary_overwrites_no_image_and_no_run(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`seewhy summary` refuses images and part files of the run that have the path of an output, and a file as folder."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "photos")
    bulk_run = seewhy.explain_all(
        make_network(), "photos", "run", preprocess=seewhy.Preprocess.imagenet(32), workers=0, quiet=True
    )
    before = file_contents(tmp_path)
    Path("summary.html").symlink_to(bulk_run.files[0])
    Path("compare.html").symlink_to("photos/0.png")
    monkeypatch.setattr("seewhy.summary.run_summary.summarize", lambda *_: pytest.fail("computed before the check"))
    code, _, err = run(capsys, "summary", "run", "--out", ".")
    assert code == 2 and "the output summary.html would overwrite the input" in err
    code, _, err = run(capsys, "summary", "run", "run", "--out", ".")
    assert code == 2 and "the output compare.html would overwrite the input" in err
    for runs in (["run"], ["run", "run"]):
        code, _, err = run(capsys, "summary", *runs, "--out", "photos/0.png/sub")
        assert code == 2 and "photos/0.png is not a folder" in err and len(err.splitlines()) == 1
    for name in ("summary.html", "compare.html"):
        Path(name).unlink()
    assert file_contents(tmp_path) == before
    assert run(capsys, "summary", "run", "run", "--out", "run")[0] == 0


def test_bulk_jobs_and_exports_do_not_overwrite_inputs(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`seewhy bulk` and `export` refuse tables, labels and images of the run that have the path of an output."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    save_images(tmp_path / "maps")
    Path("table.csv").write_text("id,path\n0,maps/0.png\n1,maps/1.png\n")
    preprocess = seewhy.Preprocess.imagenet(32)
    bulk_run = seewhy.explain_all(make_network(), "table.csv", "run", preprocess=preprocess, workers=0, quiet=True)
    before = file_contents(tmp_path)
    for kind in ("png", "fiftyone"):
        code, _, err = run(capsys, "export", "run", "--to", kind, "--out", ".")
        assert code == 2 and "the output maps/0.png would overwrite the input" in err, err
    log = Path("run/log-0-of-1.jsonl")
    for inputs in (
        [str(log)], ["table.csv", "--labels", str(log)], ["table.csv", "--model", f"w.pth?labels={log}"],
        [str(bulk_run.files[0])], ["list.txt"],
    ):  # fmt: skip
        Path("list.txt").write_text(f"maps/0.png\n{log}\n")
        code, _, err = run(capsys, "bulk", *inputs, "--out", "run")
        assert code == 2 and "would overwrite the input" in err, err
    Path("list.txt").unlink()
    with pytest.raises(UsageError, match="would overwrite the input"):
        seewhy.explain_all(make_network(), bulk_run.files[0], "run", preprocess=preprocess, workers=0, quiet=True)
    assert file_contents(tmp_path) == before
    for _ in range(2):
        assert run(capsys, "export", "run", "--to", "png", "--out", "exported")[0] == 0


def test_an_output_folder_that_is_a_file(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bulk jobs and exports report it in one line, before a model is loaded or a map is drawn."""
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "photos")
    Path("file").write_text("keep this")
    preprocess = seewhy.Preprocess.imagenet(32)
    seewhy.explain_all(make_network(), "photos", "run", preprocess=preprocess, workers=0, quiet=True)
    _ = seewhy.explain, seewhy.trust  # modules that are imported now would keep the replacement
    monkeypatch.setattr("seewhy.models.loading.load_model", lambda *_, **__: pytest.fail("loaded before the check"))
    for out in ("file", "file/sub/folder"):
        exports = [["export", "run", "--to", kind, "--out", out] for kind in ("npz", "png", "coco", "fiftyone")]
        for command in (["bulk", "photos", "--out", out], *exports):
            code, printed, err = run(capsys, *command)
            assert code == 2 and printed == "" and "file is not a folder" in err and len(err.splitlines()) == 1, err
        with pytest.raises(UsageError, match="file is not a folder"):
            seewhy.explain_all(make_network(), "photos", out, preprocess=preprocess, workers=0, quiet=True)
    assert Path("file").read_text() == "keep this"
