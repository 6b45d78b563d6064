"""Contact sheets: many images of one size on one canvas, each with a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from seewhy.rendering.overlays import FAINT, INK, MAX_SIDE, PAPER
from seewhy.rendering.text import write_text

MAX_COMPARISON_COLUMNS = 6
MAX_PIXELS = 80_000_000  # 240 MB; programs warn about larger images
MIN_CELL = 48  # pixels of width for the captions of a narrow tile
GAP, CAPTION, TOP = 12, 38, 72


@dataclass(frozen=True)
class Tile:
    """One image of a contact sheet with two caption lines: `name`, and a fainter `remark`."""

    name: str
    remark: str
    image: Image.Image


def contact_sheet(tiles: Sequence[Tile], title: str, note: str = "", columns: int = 0) -> Image.Image:
    """Draw images of one size in rows of `columns` (0: chosen), with captions below each and a title on top."""
    across, down = cell_size(tiles[0].image)
    width, height = across - GAP, tiles[0].image.height
    columns = columns or choose_columns(len(tiles), width, height)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (GAP + columns * across, TOP + rows * down), PAPER)
    write_text(sheet, (GAP, 12), title, 24, INK, sheet.width - 2 * GAP)
    write_text(sheet, (GAP, 44), note, 14, FAINT, sheet.width - 2 * GAP)
    for index, tile in enumerate(tiles):
        x, y = GAP + index % columns * across, TOP + index // columns * down
        sheet.paste(tile.image, (x, y))
        write_text(sheet, (x, y + height + 3), tile.name, 13, INK, width)
        write_text(sheet, (x, y + height + 20), tile.remark, 12, FAINT, width)
    return sheet


def cell_size(tile: Image.Image) -> tuple[int, int]:
    """Return the width and height of a tile with its captions and the gap to the next one."""
    return max(tile.width, MIN_CELL) + GAP, tile.height + CAPTION + GAP


def sheet_capacity(tile: Image.Image, columns: int = 0) -> int:
    """Return how many tiles fit on one sheet, in rows of `columns` (0: any)."""
    across, down = cell_size(tile)
    count = MAX_PIXELS // (across * down)
    return max(1, min(count, columns * ((MAX_SIDE - TOP) // down)) if columns else count)


def table_capacity(tile: Image.Image, rows: int) -> tuple[int, int]:
    """Return how many of `rows` rows fit on one sheet, and how many columns then."""
    across, down = cell_size(tile)
    rows = max(1, min(rows, (MAX_SIDE - TOP) // down, MAX_PIXELS // (2 * across * down)))
    return rows, max(2, min((MAX_SIDE - GAP) // across, MAX_PIXELS // (across * down * rows)))


def comparison_sheet(tiles: Sequence[Tile], title: str, note: str, methods: int) -> Image.Image:
    """Draw a row per target and a column per method. One method, or more than six, fill rows of up to six tiles."""
    columns = methods if 1 < methods <= MAX_COMPARISON_COLUMNS else min(len(tiles), MAX_COMPARISON_COLUMNS)
    return contact_sheet(tiles, title, note, columns)


def features_sheet(rows: Sequence[Sequence[Tile]], title: str, note: str) -> Image.Image:
    """Draw a row per layer: its class map, then its channels."""
    return contact_sheet([tile for row in rows for tile in row], title, note, max(map(len, rows)))


def choose_columns(count: int, width: int, height: int) -> int:
    """Return the column count of a sheet about 1.5 times as wide as high, with few empty places in its last row."""
    ideal = round((1.5 * count * (height + 50) / (width + 12)) ** 0.5)
    near = range(max(1, ideal - 2), ideal + 3)
    return min(count, min(near, key=lambda columns: (-count % columns, abs(columns - ideal))))
