"""Text in the order in which it is drawn: clusters that must not be split, and runs of one direction and one font."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Generic, TypeVar

JOINER = "\u200d"
MAX_CLUSTER = 24  # characters; longer stacks of accents are split
KEPT_FORMATS = ("\u200c", JOINER)  # they change the shape of letters; other invisible characters are dropped
SEPARATOR = re.compile("( {2,})")  # between a name and a number, which must not move to the other side of the name
BRACKETS = {"(": ")", "[": "]", "{": "}", "（": "）", "［": "］", "「": "」", "《": "》"}
MIRRORED = str.maketrans("()[]{}<>«»", ")(][}{><»«")

Font = TypeVar("Font")


@dataclass(frozen=True)
class Run(Generic[Font]):
    """A part of a line in one font and one direction, with its characters in reading order."""

    text: str
    font: Font
    is_right_to_left: bool = False


def clean_text(text: str) -> str:
    """Return composed text without invisible characters; line breaks and control characters become spaces.

    >>> clean_text("e\\u0301\\u202e\\n!")
    'é !'
    """
    return "".join(filter(None, map(clean_character, unicodedata.normalize("NFC", text))))


def clean_character(sign: str) -> str:
    category = unicodedata.category(sign)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    return "" if category == "Cf" and sign not in KEPT_FORMATS and not is_tag(sign) else sign


def split_clusters(text: str) -> list[str]:
    """Split text into characters with the accents, vowel signs and joined emoji that belong to them.

    >>> split_clusters("กำ้n"), len(split_clusters("👩\\u200d🚀🇩🇪"))
    (['กำ้', 'n'], 2)
    """
    clusters: list[str] = []
    for sign in text:
        if clusters and len(clusters[-1]) < MAX_CLUSTER and is_joined(clusters[-1], sign):
            clusters[-1] += sign
        else:
            clusters.append(sign)
    return clusters


def shorten_middle(text: str, count: int) -> str:
    """Return at most `count` clusters of a text: the first and the last ones, and "…" between them.

    >>> shorten_middle("a very long name", 9), shorten_middle("short", 9)
    ('a ve…name', 'short')
    """
    if len(text) <= count:
        return text
    limit = count * MAX_CLUSTER  # a longer text is too long in any case
    clusters = split_clusters(text if len(text) <= 2 * limit else text[:limit] + text[-limit:])
    kept = count - 1
    return text if len(clusters) <= count else join_ends(clusters, kept)


def join_ends(clusters: Sequence[str], kept: int) -> str:
    """Return the first and last clusters, `kept` in total, with "…" between them."""
    return "".join((*clusters[: kept // 2], "…", *clusters[len(clusters) - (kept - kept // 2) :]))


def is_joined(cluster: str, sign: str) -> bool:
    """Return True if a character belongs to the cluster before it."""
    if sign.isascii():
        return False
    if unicodedata.category(sign)[0] == "M" or sign in KEPT_FORMATS or is_tag(sign) or "🏻" <= sign <= "🏿":
        return True
    if sign in "ำຳ" or "\u1160" <= sign <= "\u11ff":  # vowels of Thai and Lao, and later parts of Korean syllables
        return True
    if is_flag_letter(sign):
        return len(cluster) == 1 and is_flag_letter(cluster)
    return cluster[-1] == JOINER or is_virama(cluster[-1])


def is_tag(sign: str) -> bool:
    return "\U000e0020" <= sign <= "\U000e007f"


def is_flag_letter(sign: str) -> bool:
    return "🇦" <= sign <= "🇿"


def is_virama(sign: str) -> bool:
    """Return True for a sign that joins two consonants of an Indic script."""
    return unicodedata.combining(sign) == 9


def arrange(text: str, fonts: Mapping[str, Font], default: Font) -> list[Run[Font]]:
    """Return the runs of a line from left to right. `fonts` maps each cluster to its font.

    The direction of a part of the line follows its first letter, as with `dir="auto"` in HTML. This is a subset of the Unicode
    bidirectional algorithm (UAX #9), without explicit marks. Inside a run, the shaping library applies the algorithm.
    """
    runs: list[Run[Font]] = []
    for part in SEPARATOR.split(text):
        if part.startswith("  "):
            runs.append(Run(part, default))
        elif part:
            runs += arrange_part(split_clusters(part), fonts)
    return runs


def arrange_part(clusters: Sequence[str], fonts: Mapping[str, Font]) -> list[Run[Font]]:
    directions = find_directions(clusters)
    starts_right = first_direction(directions) == "R"
    runs: list[Run[Font]] = []
    resolved = resolve(clusters, directions, "R" if starts_right else "L")
    for direction, pairs in groupby(zip(resolved, clusters, strict=True), key=lambda pair: pair[0]):
        is_right = direction == "R"
        own = [
            Run("".join(group), font, is_right)
            for font, group in groupby([cluster for _, cluster in pairs], key=fonts.__getitem__)
        ]
        own = own[::-1] if is_right else own
        runs = own + runs if starts_right else runs + own
    return runs


def find_directions(clusters: Sequence[str]) -> list[str]:
    """Return "L" or "R" for letters, "N" for digits, and "" for signs and spaces."""
    kinds = {"L": "L", "R": "R", "AL": "R", "EN": "N", "AN": "N"}
    return [kinds.get(unicodedata.bidirectional(cluster[0]), "") for cluster in clusters]


def first_direction(directions: Sequence[str]) -> str:
    return next((direction for direction in directions if direction in ("L", "R")), "L")


def resolve(clusters: Sequence[str], directions: Sequence[str], base: str) -> list[str]:
    """Return "L" or "R" for every cluster: digits follow the letter before them; signs, equal neighbors, else `base`."""
    before, known = base, []
    for direction in directions:
        before = direction if direction in ("L", "R") else before
        known.append(before if direction else "")
    for opening, closing in bracket_pairs(clusters):
        known[opening] = known[closing] = bracket_direction(known, opening, closing, base)
    return fill_neutrals(known, base)


def fill_neutrals(known: Sequence[str], base: str) -> list[str]:
    """Replace each "" by the direction of both neighbors if these are equal, else by `base`."""
    groups = [(direction, len(list(group))) for direction, group in groupby(known)]
    filled: list[str] = []
    before = base
    for (direction, count), (after, _) in pairwise([*groups, (base, 0)]):
        filled += [direction or (before if before == after else base)] * count
        before = direction or before
    return filled


def bracket_pairs(clusters: Sequence[str]) -> list[tuple[int, int]]:
    """Return the positions of brackets that belong together, in the order of the opening ones."""
    pairs, unclosed = [], list[tuple[int, str]]()
    for at, cluster in enumerate(clusters):
        if cluster in BRACKETS:
            unclosed.append((at, BRACKETS[cluster]))
        elif unclosed and cluster == unclosed[-1][1]:
            pairs.append((unclosed.pop()[0], at))
    return sorted(pairs)


def bracket_direction(known: Sequence[str], opening: int, closing: int, base: str) -> str:
    """Return the direction of a pair: `base`, unless it and the letter before it have the other one; "" if it contains none."""
    inside = {*known[opening + 1 : closing]} - {""}
    before = next(filter(None, reversed(known[:opening])), base)
    return base if base in inside else before if inside else ""


def reverse_letters(text: str) -> str:
    """Return right-to-left text from left to right, for Pillow without a shaping library; numbers keep their order.

    >>> reverse_letters("אב (12)")
    '(12) בא'
    """
    words = re.findall(r"\d+(?:[.,]\d+)*|\D", text)
    clusters: list[str] = []
    for word in words:
        clusters += [word] if word[0].isdigit() else split_clusters(word)
    joined: list[str] = []
    for cluster in clusters:
        if joined and not cluster[0].isdigit() and is_joined(joined[-1], cluster[0]):
            joined[-1] += cluster
        else:
            joined.append(cluster)
    return "".join(cluster.translate(MIRRORED) for cluster in reversed(joined))
