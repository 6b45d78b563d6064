"""The fonts of captions: Pillow's built-in font, and for other characters the fonts of this system, loaded when needed."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from PIL import ImageFont, features

from seewhy.rendering.font_files import ASCII, CharacterMap, character_map_of, font_files, read_character_map

REGULAR_WEIGHT = 400  # the default weight of a variable font may be "thin"
BITMAP_SIZES = (109, 136, 128, 160, 96, 64, 48, 40, 32, 20)  # pixels, of color emoji
MAX_COLLECTION = 32
MAX_CLUSTERS = 10_000  # per font: a server draws captions of any number of texts
IGNORABLE = "\u200c\u200d\ufe0e\ufe0f"  # joiners and variation selectors, which fonts need not contain
EMOJI_STYLE = "\ufe0f"
FIRST_EMOJI = "\U0001f000"
# In a collection, the fonts of these languages share characters but not their forms.
LANGUAGES = {"ja": ("JP",), "ko": ("KR",), "zh": ("SC", "CN", "GB")}
EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH", "HANGUL")

ADVICE = (
    "install fonts for that script, for example with pip install 'seewhy[fonts]' or, on Debian and Ubuntu, "
    "apt install fonts-noto-cjk fonts-noto-core"
)

FreeTypeFont = ImageFont.FreeTypeFont


@cache
def load_font(size: int) -> FreeTypeFont:
    """Load Pillow's built-in font at `size` pixels."""
    font = ImageFont.load_default(size)
    assert isinstance(font, FreeTypeFont)  # for any size
    return font


@cache
def has_shaping() -> bool:
    """Return True if Pillow joins and reorders the letters of Arabic, Hindi and other scripts."""
    return features.check("raqm") is True


@dataclass(frozen=True, eq=False)
class SizedFont:
    """A font at one size. A font of bitmaps has few sizes: it is drawn at one of them, then resized by `scale`."""

    font: FreeTypeFont
    scale: float = 1.0


@dataclass(eq=False)
class Face:
    """A font file, or the built-in font (path ""). Which characters it can draw is read from the file without loading it."""

    path: str = ""
    is_broken: bool = False
    _drawable: dict[str, bool] = field(default_factory=dict, repr=False)

    @property
    def characters(self) -> CharacterMap:
        return character_map_of(self.path) if self.path else built_in_characters()

    def covers(self, cluster: str) -> bool:
        """Return True if the font contains all characters of a cluster and can draw it."""
        drawable = self._drawable.get(cluster)
        if drawable is None:
            known = all(ord(sign) in self.characters for sign in cluster if sign not in IGNORABLE)
            drawable = known and (not self.path or self._draws(cluster))
            if len(self._drawable) >= MAX_CLUSTERS:
                self._drawable = {}
            self._drawable[cluster] = drawable
        return drawable and not self.is_broken

    def _draws(self, cluster: str) -> bool:
        """Try it: a damaged file raises, and a font may have an empty glyph (color fonts of a format unknown to Pillow)."""
        try:
            mask = self.sized(20).font.getmask(cluster, "RGBA")
        except (OSError, ValueError):
            return False
        return cluster.isspace() or mask.getbbox() is not None

    def sized(self, size: int, language: str = "") -> SizedFont:
        """Return the font at `size` pixels. Raises OSError if the file is damaged."""
        return load_face(self.path, size, language)


@lru_cache(64)
def load_face(path: str, size: int, language: str) -> SizedFont:
    if not path:
        return SizedFont(load_font(size))
    index = index_for(path, language) if language and path.lower().endswith(("ttc", "otc")) else 0
    try:
        return SizedFont(load_regular(path, size, index))
    except OSError:
        for strike in BITMAP_SIZES:
            try:
                return SizedFont(load_regular(path, strike, index), size / strike)
            except OSError:
                continue
        raise


def load_regular(path: str, size: int, index: int) -> FreeTypeFont:
    font = ImageFont.truetype(path, size, index)
    try:
        axes = font.get_variation_axes()
    except (OSError, NotImplementedError):  # not a variable font
        return font
    font.set_variation_by_axes(
        [REGULAR_WEIGHT if axis.get("name") == b"Weight" else axis["default"] or 0 for axis in axes]
    )
    return font


@cache
def index_for(path: str, language: str) -> int:
    """Return the number of the font for a language in a collection; the first one if none is named after it."""
    for index in range(MAX_COLLECTION):
        try:
            family, style = ImageFont.truetype(path, 20, index).getname()
        except OSError:
            break
        words = (family or "").split()
        if words[-1:] and words[-1] in LANGUAGES[language] and style in ("Regular", "Thin"):
            return index
    return 0


@cache
def built_in_characters() -> CharacterMap:
    """Return the characters of Pillow's built-in font: ASCII and a few signs."""
    source: object = load_font(20).path
    return read_character_map(source) if isinstance(source, io.BytesIO) else ASCII


BUILT_IN = Face()


@cache
def faces() -> tuple[Face, ...]:
    """Return all fonts, the built-in one first."""
    return (BUILT_IN, *map(Face, font_files()))


def script_of(cluster: str) -> str:
    """Return a key of the script of a cluster; the cluster itself for signs of no script.

    >>> script_of("Б"), script_of("か"), script_of("ü"), script_of("7")
    ('CYRILLIC', 'CJK', 'LATIN', '7')
    """
    name = unicodedata.name(cluster[0], "").split(" ")[0]
    if name in EAST_ASIAN:
        return "CJK"
    return name if unicodedata.category(cluster[0])[0] in "LM" else cluster


def choose_faces(clusters: Sequence[str]) -> dict[str, Face | None]:
    """Return the font of each cluster, and None where no font can draw it. Letters of one script share a font if possible."""
    groups: dict[str, dict[str, None]] = {}
    for cluster in clusters:
        groups.setdefault(script_of(cluster), {})[cluster] = None
    chosen: dict[str, Face | None] = {}
    for group in groups.values():
        remaining = list(group)
        while remaining:
            face = best_face(remaining)
            chosen |= dict.fromkeys([cluster for cluster in remaining if face is None or face.covers(cluster)], face)
            remaining = [cluster for cluster in remaining if cluster not in chosen]
    return chosen


def best_face(clusters: Sequence[str]) -> Face | None:
    """Return the first font that covers all clusters; else the one that covers most; None if none covers any."""
    best, most = None, 0
    for face in candidates(clusters):
        count = sum(map(face.covers, clusters))
        if count > most:
            best, most = face, count
        if count == len(clusters):
            break
    return best


def candidates(clusters: Sequence[str]) -> Iterable[Face]:
    if all(map(BUILT_IN.covers, clusters)):  # then no folder is searched
        return (BUILT_IN,)
    if EMOJI_STYLE in clusters[0] or clusters[0] >= FIRST_EMOJI:
        return sorted(faces(), key=lambda face: "emoji" not in face.path.lower())
    return faces()


def language_of(text: str) -> str:
    """Return "ja", "ko" or "zh", by the syllables in the text, or "" without East Asian characters."""
    names = {unicodedata.name(sign, "").split(" ")[0] for sign in text if not sign.isascii()}
    if names & {"HIRAGANA", "KATAKANA"}:
        return "ja"
    return "ko" if "HANGUL" in names else "zh" if "CJK" in names else ""
