"""Files for publishing agree with pyproject.toml: citation, conda recipe, container, Space, workflows, description."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

import seewhy
from support.paths import ROOT

yaml = pytest.importorskip("yaml")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text("utf-8"))


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_citation_has_the_version() -> None:
    citation = read_yaml("CITATION.cff")
    assert citation["version"] == seewhy.__version__ and citation["license"] == PROJECT["license"]


def test_the_conda_recipe_has_the_same_dependencies() -> None:
    recipe = read_yaml("packaging/conda/recipe.yaml")
    assert recipe["context"]["version"] == seewhy.__version__
    run = {one.partition(" ")[0]: one.partition(" ")[2] for one in recipe["requirements"]["run"]}
    assert run.pop("python") == PROJECT["requires-python"]
    expected = dict(re.fullmatch(r"([\w-]+)(.*)", one).groups() for one in PROJECT["dependencies"])  # type: ignore[union-attr, misc]
    expected["pytorch"] = expected.pop("torch")
    assert run == expected


def test_workflows_run_what_contributors_run() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for name in ("tests", "release"):
        workflow = read_yaml(f".github/workflows/{name}.yml")
        assert workflow["permissions"] == {"contents": "read"}
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        commands = "\n".join(step.get("run", "") for step in steps)
        assert "bash .ci/run" in commands and (ROOT / ".ci" / "run").exists()
        assert set(re.findall(r"^make ([\w-]+)", commands, re.MULTILINE)) <= targets
        assert all(
            job["timeout-minutes"] for job in workflow["jobs"].values() if "make" in str(job) or ".ci" in str(job)
        )


def test_the_container_copies_what_the_build_needs() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    (copied,) = re.findall(r"^COPY (.+) /src/$", text, re.MULTILINE)
    assert all((ROOT / name).exists() for name in copied.split())
    assert {"pyproject.toml", "hatch_build.py", "README.md"} <= set(copied.split())


def test_the_space_explains_a_photo() -> None:
    app = load("packaging/huggingface_space/app.py")
    photo = Image.open(seewhy.sample("cat_espresso"))
    answer, overlay, page = app.explain_photo(photo, "espresso")
    assert "espresso:" in answer and "r = " in answer and overlay.size[0] > 200
    assert page.endswith("report.html")
    assert app.explain_photo(photo, "espreso")[0].startswith("no class 'espreso'")
    assert app.explain_photo(None, "") == ("Upload a photo first.", None, None)


def test_links_of_the_description_are_absolute_on_a_package_index(monkeypatch: pytest.MonkeyPatch) -> None:
    build = load("hatch_build.py")
    metadata: dict[str, Any] = {}
    hook = build.Description(str(ROOT), {})
    monkeypatch.delenv("SEEWHY_IMAGES", raising=False)
    hook.update(metadata)
    assert metadata["readme"]["text"] == (ROOT / "README.md").read_text("utf-8")
    base = "https://raw.githubusercontent.com/owner/name/v1/"
    monkeypatch.setenv("SEEWHY_IMAGES", base)
    hook.update(metadata)
    links = re.findall(r"\]\(([^)\s]+)\)", metadata["readme"]["text"])
    images = [link for link in links if link.endswith((".png", ".jpg"))]
    assert len(images) >= 4 and all(
        link.startswith(base) and (ROOT / link.removeprefix(base)).exists() for link in images
    )
    assert all(link.startswith(("https://", "#")) for link in links)
    assert "https://github.com/owner/name/blob/v1/docs/trust.md" in links
