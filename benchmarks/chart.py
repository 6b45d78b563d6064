"""Draw the ratios of results.json as a bar chart: docs/images/speed.svg.

.venv-bench/bin/python benchmarks/chart.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
CHART = HERE.parent / "docs" / "images" / "speed.svg"
COLORS = {
    "torchcam": "#9aa5b1",
    "seewhy": "#7cc4a0",
    "seewhy, prepared": "#1f7a4d",
    "seewhy, prepared in bf16": "#d98e04",
}
WIDTH = 0.2


def main() -> None:
    ratios = json.loads((HERE / "results.json").read_text())["ratios"]
    figure, axes = plt.subplots(2, 1, figsize=(9, 6), sharey=True)
    for axis, batch in zip(axes, (1, 8), strict=True):
        found = {
            match[1]: ratios[title]
            for title in ratios
            if (match := re.fullmatch(rf"([^,]+), all (\d+) layers, batch {batch}", title))
        }
        for place, (name, color) in enumerate(COLORS.items()):
            values = [contenders.get(name, 0) for contenders in found.values()]
            axis.bar(
                [index + (place - 1.5) * WIDTH for index in range(len(found))], values, WIDTH, color=color, label=name
            )
        axis.axhline(1, color="#444", linewidth=0.8)
        axis.set_xticks(range(len(found)), list(found), fontsize=8)
        axis.set_title(f"batch {batch}", fontsize=9, loc="left")
        axis.set_ylabel("times the bare forward", fontsize=8)
        axis.tick_params(axis="y", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, ncols=4, fontsize=8, loc="upper right", bbox_to_anchor=(1, 1.28))
    figure.tight_layout()
    plt.rcParams["svg.hashsalt"] = "seewhy"
    figure.savefig(CHART, metadata={"Date": None})


if __name__ == "__main__":
    main()
