"""File names that break programs: what a shell, a terminal, a parser, a page or another system may read as something else."""

from __future__ import annotations

SUFFIX = b".png"
MAX_BYTES = 255  # of a name on Linux

CONTROL = [bytes([code]) for code in (*range(1, 0x20), 0x7F)] + [chr(code).encode() for code in range(0x80, 0xA0)]
ESCAPES = [
    b"\x1b[2J", b"\x1b[31mred\x1b[0m", b"\x1b]0;title\x07", b"\x1b]8;;http://x.y\x1b\\link\x1b]8;;\x1b\\", b"\x1bc",
    b"\x1b[999C", b"\x1b[1;1H", b"\x1b[?25l", b"\x1b[?1049h", b"\x1b]52;c;AAAA\x07", b"\x1bP1;2q\x1b\\",
    b"\x1b_x\x1b\\", "\x9b31m".encode(), "\x9d0;x\x9c".encode(), b"\x1b", b"\x1b[", b"\x0e\x0f", b"a\rb", b"a\nb",
    b"\n", b"\r\n", b"a\tb", b"a\x08b", b"a\x0bb\x0cc", b"seewhy: error\nTraceback (most recent call last):",
]  # fmt: skip
QUOTES = [
    b"'", b'"', b"`", b"''", b'""', b"it's", b'say "hi"', b"a'b\"c`d", b"\\", b"\\\\", b"\\n", b"\\'", b"$'x'",
    b"\xe2\x80\x98x\xe2\x80\x99",
]  # fmt: skip
SHELL = [
    b"$HOME", b"${HOME}", b"$(id)", b"`id`", b";id", b"a;b", b"a&b", b"a&&b", b"a|b", b"a>b", b"a<b", b"!x", b"!!",
    b"~", b"~root", b"#x", b"a #b", b"a=b", b"^x", b"(x)", b"$", b"$$", b"${IFS}id", b"a b", b"a  b", b" a", b"a ",
    b"  ",
]  # fmt: skip
GLOBS = [
    b"*", b"**", b"?", b"[a]", b"[!a]", b"[", b"]", b"[[]", b"a*b", b"{a,b}", b"{0..9}", b"{000..146}", b"{", b"}",
    b"{}", b"{0}", b"{name}", b"{0..99999999999}", b"x-{1..2}-{1..2}", b"{a", b"a}",
]  # fmt: skip
OPTIONS = [
    b"-", b"--", b"-o", b"-h", b"--help", b"--out", b"--out=x", b"--version", b"--json", b"-q", b"--layers=*",
    b"--no-such", b"---", b"-1", b"--targets", b"@file", b"@", b"+x", b"-\xff", b"--\x1b[31m", b"stdin:", b"stdin",
    b"-.png", b"--model=x",
]  # fmt: skip
PERCENT = [
    b"%", b"%s", b"%d", b"%n", b"%00", b"%2e%2e", b"%2F", b"%", b"%%", b"%(x)s", b"%5", b"100%", b"%1$s", b"%PATH%",
    b"{!r}", b"{:>999999}",
]  # fmt: skip
SEEWHY = [
    b"like:", b"like:x", b"like: '", b"text:x", b"stdin:x", b"index.html", b"INDEX.HTML", b"explanation.json",
    b"maps.npz", b"overlay.jpg", b"sheet.jpg", b"photo.jpg", b"overlays", b"sheets", b"maps", b"cam", b"report.html",
    b"job.json", b"top5", b"predicted", b"label", b"every", b"a|b", b"gradcam|1|layer", b"embedded", b"timm",
    b"a?arch=b", b"a@1", b"smooth(gradcam, n=5)", b"(" * 60, b"box:1,2,3,4",
]  # fmt: skip
MARKUP = [
    b"[red]", b"[/red]", b"[/]", b"[bold]x[/bold]", b"[link=http:x]y", b"[[x]]", b"[red", b":smile:", b":warning:",
    b"<b>", b"<script>alert(1)<", b"<img src=x onerror=alert(1)>", b"<!--", b"-->", b"]]>", b"&lt;", b"&amp;", b"&",
    b"\" onload=\"x", b"javascript:alert(1)", b"{{x}}", b"{%x%}", b"<?xml", b"<style>", b"<<template id='x'",
    b"\xe2\x80\xa8x\xe2\x80\xa9", b"*x*", b"_x_", b"$x^2$", b"\\alert{x}", b"=1+1", b"=cmd|' /C calc'!A0", b"+1",
    b"@SUM(1)", b",", b"a,b", b"a;b", b"a\tb,c",
]  # fmt: skip
URLS = [
    b"http:", b"http:example.com", b"https:%2f%2fx.y", b"file:x", b"data:image,", b"s3:x", b"hf:x", b"C:", b"C:x",
    b"a:b", b"a:b:c", b"x?y=z", b"x#y", b"x?#", b"user@host", b"..%2f..%2fetc", b"zip:x!y",
]  # fmt: skip
UNICODE = [
    text.encode()
    for text in (
        "é", "e\u0301", "e" + "\u0301" * 80, "ﬁ", "ß", "İ", "ı", "Ⅷ", "①", "ﷺ", "漢字", "한글", "ไทย", "עברית",
        "العربية", "हिन्दी", "Ελληνικά", "кот", "\u202egnp.exe", "\u202dx", "\u2066x\u2069", "\u200fx", "a\u200bb",
        "a\u200db", "\ufeffx", "\u00a0", "\u3000", "\u2028", "\u2029", "\u0085", "a\u00adb", "\u034f", "\u180e",
        "\u2060", "😀", "👨‍👩‍👧", "🏳️‍🌈", "🇩🇪", "👍🏽", "𝒳", "𠜎", "\U000e0041", "\ue000", "\ufffd", "\uffff",
        "\U0010ffff", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A", "１２３", "／", "．．", "‥", "：", "＜script＞", "K", "Å", "\u0345", "ǆ",
    )
]  # fmt: skip
NOT_UTF8 = [
    b"\xff", b"\xfe\xff", b"caf\xe9", b"\x80", b"\xbf", b"\xc0\xaf", b"\xc3", b"a\xc3(b", b"\xe2\x82", b"\xe2(\xa1",
    b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf8\x88\x80\x80\x80",
    b"\xf4\x90\x80\x80", b"\x93\xfa\x96{", b"\xa4\xb3", b"\xff" * 60, b"\x1b[31m\xff", b"\xe9\n\xe9", b"\xc1\x81",
]  # fmt: skip
WINDOWS = [
    name.encode()
    for name in (
        "con", "CON", "prn", "aux", "nul", "NUL", "com1", "COM9", "lpt1", "LPT9", "con.txt", "nul.tar.gz", "conin$",
        "clock$", "a.", "a..", "a.lnk",
    )
]  # fmt: skip
DOTS = [
    b"...", b"....", b". .", b" .", b"a.b.c.d", b"..a", b".", b"a..b", b"._a", b".hidden", b"a.png",
    b"a.jpg.png.gif", b"a.tar", b"a.csv", b"a.txt",
]  # fmt: skip
NUMBERS = [
    b"0", b"-0", b"1e999", b"nan", b"inf", b"0x10", b"9" * 200, b"1_000", b"True", b"None", b"null", b"[]", b"{}",
    b"undefined", b"__init__", b"__class__",
]  # fmt: skip
SHAPES = [
    b"a" * 79, b"a" * 80, b"a" * 81, b"A", b"A" * 80,
]  # fmt: skip

GROUPS = (
    CONTROL, ESCAPES, QUOTES, SHELL, GLOBS, OPTIONS, PERCENT, SEEWHY, MARKUP, URLS, UNICODE, NOT_UTF8, WINDOWS, DOTS,
    NUMBERS, SHAPES,
)  # fmt: skip


def long_names() -> list[bytes]:
    """Return names of nearly the maximum length, of letters with one to four bytes."""
    names = []
    for letter in ("a", "é", "漢", "😀", "\u0301", " ", ".", "%", "\x1b", "-", "\udcff"):
        data = letter.encode("utf-8", "surrogateescape")
        for room in (MAX_BYTES, MAX_BYTES - 1, 160):
            names.append(data * ((room - len(SUFFIX)) // len(data)))
    return names


def hostile_names() -> list[bytes]:
    """Return different file names of images, as bytes and without a folder; all are valid on Linux.

    No name starts with a dot, because a search of a folder skips hidden files.
    """
    stems = dict.fromkeys(stem for group in (*GROUPS, long_names()) for stem in group)
    names = dict.fromkeys(stem + SUFFIX for stem in stems if b"/" not in stem and not (stem + SUFFIX).startswith(b"."))
    return [name for name in names if len(name) <= MAX_BYTES]
