"""Draw the figures of docs/real_networks.md with the networks in the data folder (SEEWHY_DATA, or ../shared/data).

    .venv/bin/python docs/make_real_networks.py [FOLDER]

The license of bus.jpg does not allow redistribution, so its maps are drawn on black, with boxes or outlines.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import seewhy
from seewhy.rendering import overlays as render
from seewhy.rendering.contact_sheets import Tile
from seewhy.rendering.text import write_text

HERE = Path(__file__).parent
DATA = Path(os.environ.get("SEEWHY_DATA", HERE.parent.parent / "shared" / "data"))
SIDE = 330  # height of a tile
NECK = "Concat_230"
PERSONS = [(43, 383, 214, 903), (214, 406, 336, 877), (0, 562, 65, 851)]  # detected by FastestDet in bus.jpg
BUS = (22, 231, 805, 757)
GREY, WHITE = (110, 110, 118), (255, 255, 255)
Box = tuple[int, int, int, int]


def snippets() -> list[str]:
    """Return the code of docs/real_networks.md, one snippet per network."""
    return re.findall(r"```python\n(.*?)```", (HERE / "real_networks.md").read_text("utf-8"), re.DOTALL)


@contextlib.contextmanager
def in_data_folder() -> Iterator[None]:
    """Change to a temporary folder with the networks' files and bus.jpg, and make their loaders importable."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        for source in [*(DATA / "models").iterdir(), DATA / "pictures" / "bus.jpg"]:
            Path(name, source.name).symlink_to(source.resolve())
        sys.path.insert(0, str(DATA / "models"))
        os.chdir(name)
        try:
            yield
        finally:
            os.chdir(before)
            sys.path.remove(str(DATA / "models"))


def run_snippets() -> list[dict[str, Any]]:
    """Run the snippets and return the variables of each."""
    found: list[dict[str, Any]] = []
    with in_data_folder():
        for code in snippets():
            found.append({})
            exec(code, found[-1])
    return found


def explain_with(names: dict[str, Any], net: Any, image: Any, **options: Any) -> seewhy.Explanation:
    """Explain another image or target with the settings of a snippet."""
    labels = names["e"].labels
    return seewhy.explain(net, image, preprocess=names["prepare"], labels=labels, **options)


def on_black(
    heat: NDArray[np.float32], marks: Sequence[Any] = (), boxes: Sequence[tuple[Box, Any]] = ()
) -> Image.Image:
    """Return a heatmap in the photo's geometry without the photo. `marks`: regions to outline; `boxes`: boxes with colors."""
    black = Image.new("RGB", heat.shape[::-1])
    image = render.draw_overlay(black, heat, seewhy.OverlayStyle(opacity=1.0), (0, 0, *black.size))
    for region in marks:
        inner = region & np.roll(region, 4, 0) & np.roll(region, -4, 0) & np.roll(region, 4, 1) & np.roll(region, -4, 1)
        image.paste(WHITE, mask=Image.fromarray(region & ~inner))
    draw = ImageDraw.Draw(image)
    for box, color in boxes:
        draw.rectangle(box, outline=color, width=5)
    return image


def with_cross(image: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Return the image with a cross at the map's maximum."""
    y, x = (int(at) for at in np.unravel_index(heat.argmax(), heat.shape))
    draw = ImageDraw.Draw(image)
    for width, color in ((13, (0, 0, 0)), (5, WHITE)):
        for step in (24, -24):
            draw.line((x - 24, y - step, x + 24, y + step), fill=color, width=width)
    return image


def sheet(rows: Sequence[Sequence[Tile]], title: str, note: str, path: Path) -> None:
    """Save rows of tiles with equal height and individual width."""
    gap, top, caption = 12, 72, 44
    small = [[resize_to_height(tile.image) for tile in row] for row in rows]
    width = max(gap + sum(image.width + gap for image in row) for row in small)
    page = Image.new("RGB", (width, top + len(rows) * (SIDE + caption)), render.PAPER)
    draw = ImageDraw.Draw(page)
    write_text(draw, (gap, 12), title, 24, render.INK, width - 2 * gap)
    write_text(draw, (gap, 44), note, 14, render.FAINT, width - 2 * gap)
    for number, (row, images) in enumerate(zip(rows, small, strict=True)):
        x, y = gap, top + number * (SIDE + caption)
        for tile, image in zip(row, images, strict=True):
            page.paste(image, (x, y))
            write_text(draw, (x, y + SIDE + 3), tile.name, 13, render.INK, image.width)
            write_text(draw, (x, y + SIDE + 20), tile.remark, 12, render.FAINT, image.width)
            x += image.width + gap
    page.save(path, quality=85)


def resize_to_height(image: Image.Image) -> Image.Image:
    return image.resize((round(image.width * SIDE / image.height), SIDE))


def photo(e: seewhy.Explanation, target: str | None = None) -> Image.Image:
    return e.overlay(target=target, longest=None)


def deeplab(names: dict[str, Any], path: Path) -> None:
    e = names["e"]
    cat = explain_with(names, names["deeplab"], seewhy.sample("cat_espresso"), targets="cat")
    tiles = [Tile("cat", "a cat next to a cup", photo(cat))]
    won = names["deeplab"](e.inputs)[0].argmax(0)
    for name in ("bus", "person"):
        heat = e.on_photo(target=name)
        region = np.array(Image.fromarray((won == names["voc"].index(name)).numpy()).resize(heat.shape[::-1]))
        tiles.append(Tile(name, "bus.jpg; white: predicted region", on_black(heat, [region])))
    sheet([tiles], "DeepLab: where is the class?", f"{e.methods[0]} at {e.suggested}, 33 x 33 cells", path)


def fastestdet(names: dict[str, Any], path: Path) -> None:
    net = names["load_fastestdet"].load()
    targets = [seewhy.BoxScore(box, classes=0, decode=names["decode"]) for box in PERSONS]
    layers = [names["e"].suggested, NECK]
    with in_data_folder():
        e = explain_with(names, net, "bus.jpg", methods=["gradcam", "hirescam"], targets=targets, layers=layers)
    chosen = [("Grad-CAM", layers[0]), ("HiResCAM", layers[0]), ("HiResCAM", NECK)]
    rows = [[person(e, title, layer, number) for number in range(len(PERSONS))] for title, layer in chosen]
    note = "three persons in bus.jpg; white: the box of the target; cross: the map's maximum"
    sheet(rows, "FastestDet: why this box?", note, path)


def person(e: seewhy.Explanation, title: str, layer: str, number: int) -> Tile:
    heat = e.on_photo(title.lower().replace("-", ""), e.targets[number], layer)
    boxes = sorted(((box, WHITE if box == PERSONS[number] else GREY) for box in PERSONS), key=lambda box: box[1])
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    left, top, right, bottom = PERSONS[number]
    location = "in the box" if left <= x < right and top <= y < bottom else "elsewhere"
    image = with_cross(on_black(heat, (), boxes), heat)
    return Tile(f"{title}, person {number + 1}", f"{layer}: maximum {location}", image)


def cifar(names: dict[str, Any], path: Path) -> None:
    e = names["e"]
    pixels = Image.fromarray(names["prepare"].denormalize(e.inputs[0])).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    tiles = [
        Tile("cat", f"{e.methods[0]} at {e.suggested}, 8 x 8 cells", photo(e)),
        Tile("input", "32 x 32", pixels),
    ]
    sheet([tiles], "CIFAR ResNet-20", "dimmed: outside the center crop", path)


def dinov2(names: dict[str, Any], path: Path) -> None:
    e = names["e"]
    both = explain_with(names, names["vit"], seewhy.sample("cat_espresso"), targets=["cat", "food"])
    rows = [[Tile(name, "a cat next to a cup", photo(both, name)) for name in ("cat", "food")]]
    rows[0].append(Tile("vehicle", "bus.jpg; white: the bus's box", on_black(e.on_photo(), (), [(BUS, WHITE)])))
    sheet(rows, "DINOv2 ViT-S/14, eight classes", f"{e.methods[0]} at {e.suggested}, 16 x 16 cells", path)


def draw(folder: Path) -> None:
    """Draw all figures as JPEG files."""
    for maker, names in zip((deeplab, fastestdet, cifar, dinov2), run_snippets(), strict=True):
        maker(names, folder / f"real_{maker.__name__}.jpg")


if __name__ == "__main__":
    draw(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE / "images")
