"""Captions in any script: fonts, shortening, direction, and characters that no font has."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from seewhy.rendering import font_files, fonts, text
from seewhy.rendering.contact_sheets import Tile, contact_sheet
from seewhy.rendering.text_runs import Run, arrange, clean_text, split_clusters
from seewhy.targets.names import class_name
from support.fonts import write_font

pytestmark = pytest.mark.filterwarnings("ignore:no font on this system")

INK = (236, 236, 232)
CHINESE = {"猫": 800, "子": 400, "犬": 600}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A font folder that replaces those of this system."""
    caches = (
        font_files.font_files,
        font_files.character_map_of,
        fonts.faces,
        fonts.load_face,
        fonts.index_for,
        text.lay_out,
    )
    monkeypatch.setattr(font_files, "font_folders", lambda: [str(tmp_path / "fonts")])
    monkeypatch.setattr(text, "_undrawable", set[str]())
    for function in caches:
        function.cache_clear()
    yield tmp_path / "fonts"
    for function in caches:
        function.cache_clear()


def draw(line: str, size: int = 20, max_width: int = 400) -> np.ndarray:
    image = Image.new("RGB", (400, 40))
    text.write_text(image, (5, 5), line, size, INK, max_width)
    return np.asarray(image)


def inked_columns(pixels: np.ndarray) -> tuple[int, int]:
    columns = np.flatnonzero(pixels.any((0, 2)))
    return int(columns[0]), int(columns[-1])


# Fonts


def test_chinese_names_are_drawn_as_they_are(folder: Path) -> None:
    write_font(folder / "chinese.ttf", CHINESE)
    one, other = draw("猫"), draw("子")
    assert inked_columns(one)[1] - inked_columns(one)[0] == 15  # 0.8 of 20 pixels, from the font
    assert inked_columns(other)[1] - inked_columns(other)[0] == 7
    assert text.missing_font_note() == ""
    mixed = draw("猫 (cat)")
    assert (mixed[:, :22] == one[:, :22]).all() and inked_columns(mixed)[1] > 50


def test_ascii_captions_do_not_search_fonts_and_stay_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> tuple[str, ...]:
        raise AssertionError("font folders were searched")

    monkeypatch.setattr(fonts, "font_files", fail)
    image = Image.new("RGB", (400, 40))
    ImageDraw.Draw(image).text((5, 5), "minibus   93.1%  ·  gradcam", INK, ImageFont.load_default(20))
    assert (draw("minibus   93.1%  ·  gradcam") == np.asarray(image)).all()


def test_the_cache_of_a_font_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "MAX_CLUSTERS", 10)
    face = fonts.Face()
    assert all(face.covers(chr(number)) for number in range(65, 91)) and not face.covers("猫")
    assert len(face._drawable) <= 10


def test_accents_are_kept(folder: Path) -> None:
    plain = draw("Muller")
    assert (draw("Müller") == plain).all() and "U+00FC" in text.missing_font_note()
    text.lay_out.cache_clear()
    fonts.faces.cache_clear()
    font_files.font_files.cache_clear()
    write_font(folder / "latin.ttf", dict.fromkeys("Müller", 500))
    assert not (draw("Müller") == plain).all()


def test_letters_of_one_script_share_a_font(folder: Path) -> None:
    write_font(folder / "a.ttf", {"猫": 800})
    write_font(folder / "b.ttf", CHINESE)
    chosen = fonts.choose_faces(["猫", "子", "x"])
    assert chosen["猫"] is chosen["子"] and chosen["x"] is fonts.BUILT_IN
    assert chosen["猫"] is not None and chosen["猫"].path.endswith("b.ttf")


def test_upright_fonts_of_normal_weight_come_first(folder: Path) -> None:
    for name in (
        "LastResort.otf",
        "NotoSans-Bold.ttf",
        "NotoSerif-Regular.ttf",
        "sub/NotoSans-Regular.ttf",
        "unifont.ttf",
    ):
        write_font(folder / name, CHINESE)
    names = [Path(path).name for path in font_files.font_files()]
    assert names == ["NotoSans-Regular.ttf", "NotoSerif-Regular.ttf", "NotoSans-Bold.ttf", "unifont.ttf"]


def test_a_character_without_a_font_is_never_a_question_mark(folder: Path) -> None:
    assert text.spell_missing("猫 (cat)") == "U+732B (cat)"
    assert text.spell_missing("猫子") == "U+732B 5B50" != text.spell_missing("犬子")
    assert text.spell_missing("Å Ａ ²") == "A A 2"
    assert text.spell_missing("\udce9") == "U+DCE9"
    note = text.missing_font_note()
    assert "U+00B2, U+00C5, U+5B50 and" in note and "pip install 'seewhy[fonts]'" in note and "\n" not in note
    assert not (draw("猫") == draw("犬")).all()


def test_the_first_missing_character_is_a_warning_in_python(folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"no font on this system contains U\+732B: .*pip install 'seewhy\[fonts\]'"):
        draw("猫")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw("犬")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "directory", "outline", "blank", "segments", "pipe"])
def test_a_damaged_font_file_is_skipped(folder: Path, damage: str) -> None:
    path = folder / "a.ttf"
    data = write_font(path, CHINESE).read_bytes()
    if damage == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif damage == "outline":
        write_font(path, CHINESE, outlines=b"\0\x7f" + b"\xff" * 40)
    elif damage == "blank":
        write_font(path, CHINESE, outlines=b"")
    elif damage == "segments":
        at = data.index(b"\0\x0c\0\0")
        path.write_bytes(data[:at] + b"\0\x04\0\x20\0\0\xff\xfe" + b"\xff\0" * 12 + data[at + 32 :])
    else:
        path.write_bytes(
            {"empty": b"", "text": b"hello" * 99, "cut": data[:180], "directory": data[:12] + data[:1] * 400}[damage]
        )
    assert draw("Ж猫").any() and "U+732B" in text.missing_font_note()
    write_font(folder / "b.ttf", CHINESE)
    for function in (font_files.font_files, fonts.faces, text.lay_out):
        function.cache_clear()
    chosen = fonts.choose_faces(["猫"])["猫"]
    assert chosen is not None and chosen.path.endswith("b.ttf")


def test_font_folders_with_link_loops_end(folder: Path) -> None:
    write_font(folder / "a.ttf", CHINESE)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert len(font_files.font_files()) == 1


# Shortening


@pytest.mark.parametrize("sign", ["x", "猫", "a\u0301", "\u0301", "x\u200d", "ح", "Ж"])
def test_a_name_of_5000_characters_is_drawn_at_once(folder: Path, sign: str) -> None:
    write_font(folder / "chinese.ttf", CHINESE)
    draw("warm 猫")
    started = time.perf_counter()
    pixels = draw(sign * 5000, 13, 220)
    assert time.perf_counter() - started < 3
    assert inked_columns(pixels)[1] <= 5 + 220 + 2


def test_shortening_matches_the_search_one_character_at_a_time() -> None:
    font = fonts.load_font(13)
    for name in ("AVAVAVATo.layer.blocks.12.attn.proj", "iiiiiiiiillllll|||||.....", "W" * 40, "short", "1234567"):
        for width in (1, 40, 61, 80, 100, 150, 300):
            kept, line = len(name), name
            while font.getlength(line) > width and kept > 6:
                kept -= 1
                line = name[: kept // 2] + "…" + name[len(name) - (kept - kept // 2) :]
            assert text.shorten(list(name), 13, width) == line


def test_names_are_not_cut_inside_of_a_character(folder: Path) -> None:
    names = ("e\u0323\u0301" * 40, "👩‍🚀" * 40, "ที่" * 40, "🇩🇪" * 40, "ก\u0e33" * 40)
    write_font(folder / "all.ttf", dict.fromkeys("".join(names), 500))
    for name in names:
        cut = text.shorten(split_clusters(name), 13, 100)
        head, tail = cut.split("…")
        first = split_clusters(name)[0]
        assert head.replace(first, "") == tail.replace(first, "") == ""


def test_spelled_names_are_shortened_too(folder: Path) -> None:
    assert inked_columns(draw("犬猫子犬猫子犬猫子", 13, 120))[1] <= 127


# Direction


def visual(line: str) -> str:
    """Return the runs from left to right; right-to-left ones in reverse."""
    runs = arrange(line, dict.fromkeys(split_clusters(line), 0), 0)
    return "|".join(f"<{run.text}" if run.is_right_to_left else run.text for run in runs)


def test_right_to_left_names_are_ordered_as_in_html() -> None:
    assert visual("cat אב dog") == "cat |<אב| dog"
    assert visual("אב (cat) 12") == "12|<) |cat|<אב ("
    assert visual("אב (cat)") == "<)|cat|<אב ("
    assert visual("cat (אב)") == "cat (|<אב|)"
    assert visual("אב 12 גד") == "<אב 12 גד"
    assert visual("אב   93.1%") == "<אב|   |93.1%"  # the number stays at the right of the name
    assert visual("plain 12 (text)") == "plain 12 (text)"


def test_runs_of_two_fonts_in_right_to_left_text_are_reversed() -> None:
    assert arrange("אح", {"א": 1, "ح": 2}, 0) == [Run("ح", 2, True), Run("א", 1, True)]


def test_captions_without_a_shaping_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_font(folder / "hebrew.ttf", {"א": 200, "ב": 900, " ": 100})
    shaped = draw("אב")
    monkeypatch.setattr(ImageFont.core, "HAVE_RAQM", False)
    monkeypatch.setattr(fonts.features, "check", lambda name: False)
    fonts.has_shaping.cache_clear()
    fonts.load_face.cache_clear()
    text.lay_out.cache_clear()
    try:
        assert (draw("אב") == shaped).all()
    finally:
        fonts.has_shaping.cache_clear()


def test_control_characters_are_not_drawn() -> None:
    assert clean_text("a\nb\x1b\u202e\u200b\ufeffc") == "a b c"
    assert (draw("two\nlines") == draw("two lines")).all()


# Sheets


def test_a_sheet_with_names_in_chinese(folder: Path) -> None:
    write_font(folder / "chinese.ttf", CHINESE)
    tile = Image.new("RGB", (100, 60))
    sheet = contact_sheet([Tile("猫", "犬", tile), Tile("子", "7x7", tile)], "猫   93.1%", "cat.jpg")
    boxes = np.asarray(sheet)[12:40].any(2)
    assert sheet.width == 236 and boxes.any() and text.missing_font_note() == ""


def test_a_class_name_of_5000_characters_is_shortened_for_pages_tables_and_files() -> None:
    name = class_name(0, ["猫" * 5000])
    assert len(name) == 120 and name[59] == "…"
    assert class_name(0, ["x" * 120 + ", y"]) == "x" * 120
