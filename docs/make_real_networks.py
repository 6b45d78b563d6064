"""Draws the pictures of docs/real_networks.md from the networks in the data folder (SEEWHY_DATA, or ../shared/data).

.venv/bin/python docs/make_real_networks.py [FOLDER]

The maps of bus.jpg, which may not be handed on, are drawn on black, with boxes or outlines.
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
SIDE = 330  # height of a picture
NECK = "Concat_230"
PERSONS = [(43, 383, 214, 903), (214, 406, 336, 877), (0, 562, 65, 851)]  # as FastestDet finds them in bus.jpg
BUS = (22, 231, 805, 757)
GREY, WHITE = (110, 110, 118), (255, 255, 255)
Box = tuple[int, int, int, int]


def snippets() -> list[str]:
    """The code of docs/real_networks.md, a snippet for each network."""
    return re.findall(r"```python\n(.*?)```", (HERE / "real_networks.md").read_text("utf-8"), re.DOTALL)


@contextlib.contextmanager
def in_data_folder() -> Iterator[None]:
    """A folder to work in with the networks' files and bus.jpg, where their loaders can be imported."""
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
    """The names that each snippet leaves behind."""
    found: list[dict[str, Any]] = []
    with in_data_folder():
        for code in snippets():
            found.append({})
            exec(code, found[-1])
    return found


def again(names: dict[str, Any], net: Any, picture: Any, **options: Any) -> seewhy.Explanation:
    """Another question to a snippet's network."""
    labels = names["e"].labels
    return seewhy.explain(net, picture, preprocess=names["prepare"], labels=labels, **options)


def on_black(
    heat: NDArray[np.float32], marks: Sequence[Any] = (), boxes: Sequence[tuple[Box, Any]] = ()
) -> Image.Image:
    """A heat map in the photo's geometry without the photo; `marks` are outlined regions, `boxes` come with their colours."""
    black = Image.new("RGB", heat.shape[::-1])
    picture = render.draw_overlay(black, heat, seewhy.OverlayStyle(opacity=1.0), (0, 0, *black.size))
    for region in marks:
        inner = region & np.roll(region, 4, 0) & np.roll(region, -4, 0) & np.roll(region, 4, 1) & np.roll(region, -4, 1)
        picture.paste(WHITE, mask=Image.fromarray(region & ~inner))
    draw = ImageDraw.Draw(picture)
    for box, color in boxes:
        draw.rectangle(box, outline=color, width=5)
    return picture


def crossed(picture: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """The picture with a cross at the map's maximum."""
    y, x = (int(at) for at in np.unravel_index(heat.argmax(), heat.shape))
    draw = ImageDraw.Draw(picture)
    for width, color in ((13, (0, 0, 0)), (5, WHITE)):
        for step in (24, -24):
            draw.line((x - 24, y - step, x + 24, y + step), fill=color, width=width)
    return picture


def sheet(rows: Sequence[Sequence[Tile]], title: str, note: str, path: Path) -> None:
    """Rows of tiles, all of one height and each as wide as it is."""
    gap, top, caption = 12, 72, 44
    small = [[fitted(tile.image) for tile in row] for row in rows]
    width = max(gap + sum(picture.width + gap for picture in row) for row in small)
    page = Image.new("RGB", (width, top + len(rows) * (SIDE + caption)), render.PAPER)
    draw = ImageDraw.Draw(page)
    write_text(draw, (gap, 12), title, 24, render.INK, width - 2 * gap)
    write_text(draw, (gap, 44), note, 14, render.FAINT, width - 2 * gap)
    for number, (row, pictures) in enumerate(zip(rows, small, strict=True)):
        x, y = gap, top + number * (SIDE + caption)
        for tile, picture in zip(row, pictures, strict=True):
            page.paste(picture, (x, y))
            write_text(draw, (x, y + SIDE + 3), tile.name, 13, render.INK, picture.width)
            write_text(draw, (x, y + SIDE + 20), tile.remark, 12, render.FAINT, picture.width)
            x += picture.width + gap
    page.save(path, quality=85)


def fitted(picture: Image.Image) -> Image.Image:
    return picture.resize((round(picture.width * SIDE / picture.height), SIDE))


def photo(e: seewhy.Explanation, target: str | None = None) -> Image.Image:
    return e.overlay(target=target, longest=None)


def deeplab(names: dict[str, Any], path: Path) -> None:
    e = names["e"]
    cat = again(names, names["deeplab"], seewhy.sample("cat_espresso"), targets="cat")
    tiles = [Tile("cat", "a cat beside a cup", photo(cat))]
    won = names["deeplab"](e.inputs)[0].argmax(0)
    for name in ("bus", "person"):
        heat = e.on_photo(target=name)
        region = np.array(Image.fromarray((won == names["voc"].index(name)).numpy()).resize(heat.shape[::-1]))
        tiles.append(Tile(name, "bus.jpg; white: so it is called", on_black(heat, [region])))
    sheet([tiles], "DeepLab: where is it?", f"{e.methods[0]} at {e.suggested}, 33 x 33 cells", path)


def fastestdet(names: dict[str, Any], path: Path) -> None:
    net = names["load_fastestdet"].load()
    asked = [seewhy.BoxScore(box, classes=0, decode=names["decode"]) for box in PERSONS]
    layers = [names["e"].suggested, NECK]
    with in_data_folder():
        e = again(names, net, "bus.jpg", methods=["gradcam", "hirescam"], targets=asked, layers=layers)
    chosen = [("Grad-CAM", layers[0]), ("HiResCAM", layers[0]), ("HiResCAM", NECK)]
    rows = [[person(e, title, layer, number) for number in range(len(PERSONS))] for title, layer in chosen]
    note = "three persons in bus.jpg; white: the box that is asked; cross: the map's maximum"
    sheet(rows, "FastestDet: why this box?", note, path)


def person(e: seewhy.Explanation, title: str, layer: str, number: int) -> Tile:
    heat = e.on_photo(title.lower().replace("-", ""), e.targets[number], layer)
    boxes = sorted(((box, WHITE if box == PERSONS[number] else GREY) for box in PERSONS), key=lambda box: box[1])
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    left, top, right, bottom = PERSONS[number]
    said = "in the box" if left <= x < right and top <= y < bottom else "elsewhere"
    picture = crossed(on_black(heat, (), boxes), heat)
    return Tile(f"{title}, person {number + 1}", f"{layer}: maximum {said}", picture)


def cifar(names: dict[str, Any], path: Path) -> None:
    e = names["e"]
    seen = Image.fromarray(names["prepare"].denormalize(e.inputs[0])).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    tiles = [
        Tile("cat", f"{e.methods[0]} at {e.suggested}, 8 x 8 cells", photo(e)),
        Tile("what it saw", "32 x 32", seen),
    ]
    sheet([tiles], "CIFAR ResNet-20", "dimmed: outside of the centre crop, not seen", path)


def dinov2(names: dict[str, Any], path: Path) -> None:
    e = names["e"]
    both = again(names, names["vit"], seewhy.sample("cat_espresso"), targets=["cat", "food"])
    rows = [[Tile(name, "a cat beside a cup", photo(both, name)) for name in ("cat", "food")]]
    rows[0].append(Tile("vehicle", "bus.jpg; white: the bus's box", on_black(e.on_photo(), (), [(BUS, WHITE)])))
    sheet(rows, "DINOv2 ViT-S/14, eight classes", f"{e.methods[0]} at {e.suggested}, 16 x 16 cells", path)


def draw(folder: Path) -> None:
    """All pictures, as JPEG."""
    for maker, names in zip((deeplab, fastestdet, cifar, dinov2), run_snippets(), strict=True):
        maker(names, folder / f"real_{maker.__name__}.jpg")


if __name__ == "__main__":
    draw(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE / "images")
