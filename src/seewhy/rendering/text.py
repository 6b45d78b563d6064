"""Captions: one line of text in any script, shortened to the space it has."""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

from PIL import Image, ImageDraw

from seewhy.rendering.fonts import ADVICE, BUILT_IN, IGNORABLE, Face, choose_faces, has_shaping, language_of, load_font
from seewhy.rendering.text_runs import Run, arrange, clean_text, join_ends, reverse_letters, split_clusters

SHORTEST = 6  # clusters that are always kept
NO_FONT = "no font on this system"  # start of the note about missing fonts
SURROGATE = "Cs"  # category of a byte of a file name that is not UTF-8: no font has it
MARGIN = 0.4  # of the font size, above and below a line: for accents and vowel signs

_undrawable: set[str] = set()  # characters that no font has, in any caption of this process


def text_width(text: str, size: int) -> int:
    """Return the width of `text` in pixels, in Pillow's built-in font."""
    return math.ceil(load_font(size).getlength(text))


def write_text(
    image: Image.Image, position: tuple[int, int], text: str, size: int, color: tuple[int, ...], max_width: int
) -> None:
    """Write one line, shortened in the middle to fit `max_width`: layer names differ mostly at their two ends."""
    drawable = spell_missing(clean_text(clip(text, max_width)))
    line = shorten(split_clusters(drawable), size, max_width)
    if is_built_in(line):
        ImageDraw.Draw(image).text(position, line, color, load_font(size))
    else:
        draw_runs(image, position, lay_out(line, size), size, color)


def clip(text: str, max_width: int) -> str:
    """Drop the middle of a text that is certainly too long. A letter is at least 2 pixels wide; accents have no width."""
    kept = 4 * max_width + 1000
    return text if len(text) <= 2 * kept else text[:kept] + text[-kept:]


def shorten(clusters: Sequence[str], size: int, max_width: int) -> str:
    """Return the text with as many of its first and last clusters as fit, and "…" between them.

    >>> shorten("layer4.1.conv2", 13, 60)
    'lay…onv2'
    """
    text = "".join(clusters)
    kept = len(clusters)
    if kept <= SHORTEST or line_width(text, size) <= max_width:
        return text

    low, high = SHORTEST, min(kept - 1, max_width)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if line_width(join_ends(clusters, middle), size) <= max_width else (low, middle - 1)
    # Kerning can make a longer line narrower.
    longer = [
        more for more in range(low + 1, min(low + 4, kept)) if line_width(join_ends(clusters, more), size) <= max_width
    ]
    return join_ends(clusters, max([low, *longer]))


def line_width(line: str, size: int) -> int:
    """Return the width of a line in pixels, in the fonts that it is drawn in."""
    if is_built_in(line):
        return text_width(line, size)
    return math.ceil(sum(run_width(run, size, language_of(line)) for run in lay_out(line, size)))


def is_built_in(line: str) -> bool:
    return all(sign not in IGNORABLE and BUILT_IN.covers(sign) for sign in line)


@lru_cache(256)
def lay_out(line: str, size: int) -> tuple[Run[Face], ...]:
    """Return the runs of a line from left to right, in fonts that can draw them at this size."""
    while True:
        runs = find_runs(line)
        broken = [run.font for run in runs if not can_draw(run, size, language_of(line))]
        if not broken:
            return runs
        for face in broken:
            face.is_broken = True


def find_runs(line: str) -> tuple[Run[Face], ...]:
    drawable = spell_missing(line)
    clusters = split_clusters(drawable)
    chosen = choose_faces(clusters)
    fonts = {cluster: chosen[cluster] or BUILT_IN for cluster in clusters}
    return tuple(arrange(drawable, fonts, BUILT_IN))


def spell_missing(text: str) -> str:
    """Return the text with every character that no font has replaced by its closest letters or its code point."""
    if is_built_in(text):
        return text
    clusters = [cluster for cluster in split_clusters(text) if cluster.strip(IGNORABLE)]
    chosen = choose_faces(clusters)
    report_missing([cluster for cluster in clusters if chosen[cluster] is None])
    parts: list[str] = []
    for is_known, group in groupby(clusters, key=lambda cluster: chosen[cluster] is not None):
        part = "".join(group)
        parts.append(part if is_known else spell(part))
    return "".join(parts)


def can_draw(run: Run[Face], size: int, language: str) -> bool:
    """Try it: a damaged font file may fail only when its letters are drawn."""
    try:
        run.font.sized(size, language).font.getmask(visual_text(run), "RGBA", direction=direction_of(run))
    except (OSError, ValueError):
        return run.font is BUILT_IN
    return True


def report_missing(clusters: Sequence[str]) -> None:
    """Record characters that no font has, for `missing_font_note`. The first time, warn."""
    is_first = not _undrawable
    signs = (sign for cluster in clusters for sign in cluster if not sign.isascii())
    _undrawable.update(sign for sign in signs if unicodedata.category(sign) != SURROGATE)
    if is_first and _undrawable:
        warnings.warn(missing_font_note(), stacklevel=2)


def spell(text: str) -> str:
    """Return ASCII for characters that no font has: letters without their accents, or else their code points.

    >>> spell("ü"), spell("猫子")
    ('u', 'U+732B 5B50')
    """
    letters = [sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign)]
    if letters and all(map(BUILT_IN.covers, letters)):
        return "".join(letters)
    return "U+" + " ".join(f"{ord(sign):04X}" for sign in text)


def take_font_note() -> str:
    """Return a note about characters in captions since the last call that no font has; "" if there are none."""
    note = missing_font_note()
    _undrawable.clear()
    return note


def missing_font_note() -> str:
    """Return a note about the recorded characters that no font has; "" if there are none."""
    if not _undrawable:
        return ""
    some = ", ".join(f"U+{ord(sign):04X}" for sign in sorted(_undrawable)[:3])
    some += f" and {len(_undrawable) - 3} more" if len(_undrawable) > 3 else ""
    return f"{NO_FONT} contains {some}: images show these characters by number or without accents; {ADVICE}"


def run_width(run: Run[Face], size: int, language: str) -> float:
    sized = run.font.sized(size, language)
    return float(sized.font.getlength(visual_text(run), direction=direction_of(run))) * sized.scale


def is_shaped(face: Face) -> bool:
    """Return True if Pillow's shaping library draws a font; it does not draw the built-in one."""
    return has_shaping() and face is not BUILT_IN


def direction_of(run: Run[Face]) -> str | None:
    """Return the argument `direction` of Pillow, which accepts it only with its shaping library."""
    return ("rtl" if run.is_right_to_left else "ltr") if is_shaped(run.font) else None


def visual_text(run: Run[Face]) -> str:
    return reverse_letters(run.text) if run.is_right_to_left and not is_shaped(run.font) else run.text


def draw_runs(
    image: Image.Image, position: tuple[int, int], runs: Sequence[Run[Face]], size: int, color: tuple[int, ...]
) -> None:
    """Draw runs on one baseline. Letters that are higher than a line are cut, so that they cannot cover other captions."""
    ascent, descent = load_font(size).getmetrics()
    margin = round(size * MARGIN)
    language = language_of("".join(run.text for run in runs))
    widths = [run_width(run, size, language) for run in runs]
    # Transparent in the color of the text: soft edges would be dark otherwise.
    line = Image.new("RGBA", (math.ceil(sum(widths)) + 2 * size, ascent + descent + 2 * margin), (*color, 0))
    x = float(size)
    for run, width in zip(runs, widths, strict=True):
        draw_run(line, (x, margin + ascent), run, size, language, color)
        x += width
    image.paste(line, (position[0] - size, position[1] - margin), line)


def draw_run(
    line: Image.Image, origin: tuple[float, int], run: Run[Face], size: int, language: str, color: tuple[int, ...]
) -> None:
    sized = run.font.sized(size, language)
    text, direction = visual_text(run), direction_of(run)
    if sized.scale == 1:
        ImageDraw.Draw(line).text(
            origin, text, color, sized.font, anchor="ls", direction=direction, embedded_color=True
        )
        return
    ascent, descent = sized.font.getmetrics()
    width = math.ceil(sized.font.getlength(text, direction=direction))
    glyphs = Image.new("RGBA", (max(1, width), ascent + descent), (*color, 0))
    ImageDraw.Draw(glyphs).text(
        (0, ascent), text, color, sized.font, anchor="ls", direction=direction, embedded_color=True
    )
    small = glyphs.resize((max(1, round(width * sized.scale)), max(1, round(glyphs.height * sized.scale))))
    line.alpha_composite(small, (round(origin[0]), max(0, round(origin[1] - ascent * sized.scale))))
