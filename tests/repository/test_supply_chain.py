"""Licenses of dependencies, the list of packages, the constraints with hashes, and reproducible builds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata, util
from types import ModuleType

import pytest

from support.paths import ROOT

FOLDER = ROOT / "supply_chain"


def load_script(name: str) -> ModuleType:
    spec = util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


packages = load_script("packages")


@pytest.fixture(scope="module")
def required() -> Iterator[dict[str, metadata.Distribution]]:
    yield packages.closure()


def test_no_required_package_has_a_copyleft_license(required: dict[str, metadata.Distribution]) -> None:
    assert {"seewhy", "torch", "pyarrow", "ray", "uvicorn", "numpy", "h11"} <= set(required)
    assert "pytest" not in required  # for development only
    assert list(packages.problems(required)) == []
    assert {name for name, package in required.items() if packages.is_allowed(packages.license_of(package))} & set(
        packages.EXCEPTIONS
    ) == set(), "an exception that is not needed"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True), ("MIT AND BSD-3-Clause", True), ("MIT OR GPL-3.0-only", True), ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-or-later", False), ("LGPL-2.1-only", False), ("AGPL-3.0-only", False), ("MPL-2.0", False), ("unknown", False),
        ("Apache-2.0 WITH LLVM-exception", False), ("(MIT OR GPL-2.0-only) AND (ISC OR MPL-2.0)", True), ("", False),
        ("no license", False), ("True", False), ("MIT AND __import__('os')", False),
    ],
)  # fmt: skip
def test_copyleft_and_unknown_licenses_are_rejected(expression: str, expected: bool) -> None:
    assert packages.is_allowed(expression) is expected


def test_licenses_are_read_from_all_kinds_of_metadata() -> None:
    gpl = ["License :: OSI Approved :: GNU General Public License v3 (GPLv3)"]
    assert packages.find_license({"License-Expression": "mit"}, gpl) == "MIT"
    assert packages.find_license({"License": "MIT"}, gpl) == "GNU General Public License v3 (GPLv3)"
    assert packages.find_license({"License": "Apache 2.0"}, ["License :: OSI Approved"]) == "Apache-2.0"
    assert packages.find_license({}, []) == "no license"


def test_the_list_of_packages_is_the_same_each_time(required: dict[str, metadata.Distribution]) -> None:
    first, second = (json.dumps(packages.sbom(packages.closure())) for _ in range(2))
    assert first == second
    document = json.loads(first)
    assert document["bomFormat"] == "CycloneDX" and document["metadata"]["component"]["name"] == "seewhy"
    assert {one["name"] for one in document["components"]} == set(required) - {"seewhy"}


def test_constraints_have_hashes_and_no_addresses(required: dict[str, metadata.Distribution]) -> None:
    text = (FOLDER / "constraints.txt").read_text("utf-8")
    blocks = dict(re.findall(r"(?m)^([\w.-]+)==\S+ \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text))
    assert set(required) - {"seewhy"} <= set(blocks)
    lines = sum(block.count("\n") for block in blocks.values()) + len(blocks)
    comments = sum(line.startswith("#") for line in text.splitlines())
    assert lines + comments == len(text.splitlines())  # every line is a package, a hash or a comment
    assert "://" not in text


@pytest.mark.full
def test_two_builds_are_equal_and_complete() -> None:
    """Other folders, permissions, times and umask; the sdist gives the same wheel."""
    process = subprocess.run([sys.executable, FOLDER / "check_build.py"], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "three builds are equal" in process.stdout
