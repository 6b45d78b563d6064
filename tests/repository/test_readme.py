"""Snippets of README.md, CONTRIBUTING.md and docs/ run as printed, the printed output is real, and links work."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

import pytest

import seewhy
from seewhy.cli.main import main
from support.paths import ROOT

README = (ROOT / "README.md").read_text("utf-8")
NEEDS_MORE_THAN_THE_PACKAGE = ("timm/", "seewhy serve", "pip ", "make ")  # downloads, servers, installations
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a language; blocks inside list items are dedented."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(code) for _, code in found]


def commands(page: str) -> list[str]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line.strip()]
    return [line for line in lines if not any(word in line for word in NEEDS_MORE_THAN_THE_PACKAGE)]


def run_command(line: str) -> None:
    words = shlex.split(line, comments=True)
    assert words[0] == "seewhy"
    with pytest.raises(SystemExit) as end:
        main(words[1:])
    assert end.value.code in (0, None), line


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the README's user: photo.jpg, and a folder of photos."""
    shutil.copy(seewhy.sample("cat_espresso"), tmp_path / "photo.jpg")  # the format is detected from the content
    (tmp_path / "photos").mkdir()
    for name in ("coffee", "chelsea"):
        shutil.copy(seewhy.sample(name), tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_has_the_expected_snippets() -> None:
    assert len(blocks(README, "python")) == 4
    assert len(commands(README)) >= 6


def test_the_first_command_prints_what_the_readme_shows(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(commands(README)[0])
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    (shown,) = blocks(README, "text")
    for line in shown.splitlines():
        plain = line.rstrip("─ ")
        assert any(other.rstrip("─ ") == plain for other in printed), f"not printed: {line!r}"
    assert (photo / "cam" / "photo" / "report.html").exists()


@pytest.mark.parametrize("line", commands(README)[1:])
def test_commands_run(photo: Path, line: str) -> None:
    run_command(line)


@pytest.mark.parametrize("number", range(3))
def test_python_snippets_run(photo: Path, number: int) -> None:
    exec(compile(blocks(README, "python")[number], f"README.md, snippet {number}", "exec"), {})


def test_the_bulk_snippet_runs(photo: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    names: dict[str, object] = {}
    exec(compile(blocks(README, "python")[3], "README.md, bulk snippet", "exec"), names)
    assert len(names["table"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "page",
    [
        "docs/targets.md",
        "docs/other_dimensions.md",
        "docs/figures.md",
        "docs/coming_from.md",
        "docs/exported_models.md",
    ],
)
def test_snippets_of_the_docs_run(photo: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    names: dict[str, object] = {}
    for code in blocks((ROOT / page).read_text("utf-8"), "python"):
        if "(net, " not in code:  # the user's own network
            exec(compile(code, page, "exec"), names)


def test_the_page_of_a_run_is_read_back(photo: Path) -> None:
    run_command("seewhy photo.jpg -l stages -q --no-check")
    codes = [code for code in blocks((ROOT / "docs" / "page.md").read_text("utf-8"), "python") if "load_exp" in code]
    (code,) = codes
    exec(compile(code, "docs/page.md", "exec"), {})


def test_the_examples_for_contributors_run(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executes the method, its reference, the target and the model source of CONTRIBUTING.md."""
    names: dict[str, object] = {"__name__": "contributing"}
    monkeypatch.setitem(sys.modules, "contributing", type(sys)("contributing"))
    for code in blocks((ROOT / "CONTRIBUTING.md").read_text("utf-8"), "python"):
        if "import EntropyScore" not in code:  # its test, which imports the finished file
            exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    from seewhy.testing import check_method

    assert check_method(names["PositiveCAM"]())  # type: ignore[operator]
    e = seewhy.explain(seewhy.load_model(), "photo.jpg", targets=names["EntropyScore"]())  # type: ignore[operator]
    assert e.targets == ("entropy",)
    with pytest.raises(seewhy.errors.ModelError, match="no such file"):
        names["load_onnx"]("onnx:missing.onnx")  # type: ignore[operator]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_work(path: Path) -> None:
    """Files exist, and so do the headings that links point to."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file).resolve() if file else path
        assert other.exists(), f"{target}: no such file"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", other.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{target}: no such heading"
