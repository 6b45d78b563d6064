"""seewhy's metrics next to those of Quantus, captum, torchcam and grad-cam: same maps, network and images.

    .venv-bench/bin/python benchmarks/metrics_check.py     # writes benchmarks/METRICS.md; exit code 1 if equal metrics differ

Where the definition is the same, the values must agree to rounding. Where it differs, the row states what differs, and if
possible, the peer's value is computed again from parts of seewhy with the peer's rule. Quantus is licensed under the LGPL: it
is installed in .venv-bench only, and the library never imports it. xplique is imported if it is installed
(.venv-bench/bin/pip install --no-deps xplique).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import re
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from metrics_maps import of_coherency, of_dimming, of_localization, of_maps
from metrics_masks import of_infidelity, of_quantus_faithfulness
from metrics_peers import PHOTOS, Case, error_of, load_cases
from metrics_removal import of_deletion, of_road
from metrics_rows import Row
from metrics_stability import of_random_weights, of_sensitivity
from results import markdown

PAGE = Path(__file__).resolve().parent / "METRICS.md"
LIMIT = 1e-5  # networks run in float32
PEERS = {"quantus": "quantus", "captum": "captum", "torchcam": "torchcam", "grad-cam": "pytorch_grad_cam"}
PARTS: list[tuple[Callable[[Case], list[Row]], int]] = [
    (of_maps, 0), (of_coherency, 0), (of_localization, 1), (of_dimming, 0), (of_deletion, 1), (of_road, 1), (of_infidelity, 0),
    (of_quantus_faithfulness, 1), (of_sensitivity, 0), (of_random_weights, 0),
]  # fmt: skip
SAME = ["metric", "peer", "maps", "seewhy", "peer's value", "largest difference"]
OTHER = [
    "metric",
    "peer",
    "maps",
    "seewhy",
    "peer's value",
    "largest difference",
    "what differs",
    "peer's value reproduced",
]
WORDS = {
    "SRG": r"symmetric relevance|\bsrg\b",
    "MAS": r"magnitude.aligned",
    "single deletion (IDSDS)": r"idsds|single.deletion",
    "MaxBoxAcc": r"max.?box.?acc",
    "average gain": r"average.gain",
    "ADCC": r"\badcc\b",
    "DiFull": r"difull",
}
MAPS = (
    "Maps: Grad-CAM of EfficientNet-Lite0 for the most probable class of the sample images "
    f"{', '.join(PHOTOS)}, interpolated to pixels: at bn2 with 224 pixels per side; in the rows of localization, and where "
    "single pixels are removed (deletion, insertion, ROAD, Quantus), at blocks.4.2.conv_pwl with 120. The values compare "
    "definitions, not methods. *signed*: the map; *rectified*: without negative values, as heatmaps are; *distinct*: ranks of "
    "the signed map, ties broken at random; *blank*: zeros. Values are means over the photos. Differences are the largest of "
    "any photo, relative for values above one."
)
EXPLANATION = """\
**Ties.** A rectified map has thousands of equal values. torchcam removes them in raster order, and Quantus in the order of an
unstable sort, so the position of a pixel decides. grad-cam selects by a percentile of the values: if more than this fraction
of a map is 0, it removes everything. seewhy removes equal values together, as one step of the curve. On maps without ties,
they agree.

**Which score.** torchcam's metrics use logits unless `logits_fn` is given. Areas of logits are not in [0, 1], and a drop
divided by a negative logit has the wrong sign. seewhy's removal tests accept any score, and average drop is defined for
probabilities.

**Scale and sign.** Infidelity without a fitted scale depends on the units of a map, so maps of two methods cannot be
compared. With a fitted scale (captum: `normalize=True`), the square hides a negative scale. RMA of a signed map is no
fraction, and absolute values count evidence against the class as evidence for it.

**Do not use as a reference.** Quantus SensitivityN (it correlates over images, and the sum of one step with the drop of all
steps), Infidelity (nested blocks), Completeness (exact equality), PointingGame (ties, NaN) and SmoothMPRT (it ignores the
given explanation function), and grad-cam's ROAD for maps with zeros. Quantus FaithfulnessCorrelation is sensitivity-n for one
size of the subsets. The area of PixelFlipping fails with NumPy 2.4 and later, which has no `np.trapz`.

**Undefined values.** A blank map has no ranking, no fractions and no stability. seewhy returns NaN or an error. Quantus and
captum return a number (rows *blank* and *empty mask*): for pointing and stability, the best one.

**Random weights.** Both randomize the same layers. Quantus resets the statistics of norms too, and seewhy keeps them, and the
scale of activations changes less (see the row of `mprt`). Values of MPRT from the two packages are therefore not comparable."""


def absent() -> list[str]:
    """Return which metrics have no implementation in the installed packages, by a search of their source files."""
    text = ""
    for name in PEERS.values():
        folder = Path(importlib.import_module(name).__path__[0])
        text += "\n".join(path.read_text("utf-8", "ignore").lower() for path in sorted(folder.rglob("*.py")))
    return [name for name, pattern in WORDS.items() if not re.search(pattern, text)]


def xplique_status() -> str:
    """Return whether xplique runs here."""
    try:
        version = importlib.metadata.version("xplique")
    except importlib.metadata.PackageNotFoundError:
        return "xplique is not installed here, and not compared."
    message = error_of(lambda: importlib.import_module("xplique.metrics"))
    result = f"its import fails without TensorFlow: `{message}`" if message else "it can be imported"
    return f"xplique {version} is not compared; {result}."


def page(rows: list[Row]) -> str:
    same, other = [row for row in rows if not row.what], [row for row in rows if row.what]
    worst = max(same, key=lambda row: row.difference)
    packages = ("seewhy", *PEERS, "torch", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    maps = textwrap.fill(MAPS, 126, break_on_hyphens=False)
    missing = textwrap.fill(
        "**Not compared.** None of the four packages contains these (searched by name in their source files): "
        f"{', '.join(absent())}. {xplique_status()}", 126, break_on_hyphens=False,
    )  # fmt: skip
    return f"""# Metrics next to those of other packages

Generated by `.venv-bench/bin/python benchmarks/metrics_check.py`; do not edit. {versions}.

{maps}

## Same definition

The largest difference is {worst.difference:.0e} ({worst.metric}, {worst.peer}). The networks run in float32.

{markdown(SAME, [row.cells() for row in same])}

## Another definition

*Reproduced*: the peer's value was computed again from parts of seewhy with the rule in this row, and the largest difference.

{markdown(OTHER, [row.cells() for row in other])}

## What differs, and why

{EXPLANATION}

{missing}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", choices=[part.__name__ for part, _ in PARTS], help="one part; prints instead of writing"
    )
    only: str | None = parser.parse_args().only
    cases, rows = load_cases(), list[Row]()
    for part, number in PARTS:
        if only not in (None, part.__name__):
            continue
        start = time.perf_counter()
        rows += part(cases[number])
        print(f"{part.__name__}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    if only is None:
        PAGE.write_text(page(rows))
    else:
        print(*(" | ".join(row.cells()) for row in rows), sep="\n")
    return int(max(row.difference for row in rows if not row.what) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
