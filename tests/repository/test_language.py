"""The wording of code and documentation follows the glossary: a list of words that plain technical English does not need here.

Each remaining use is listed in ALLOWED with its file, phrase and count, so that a new one has to be justified.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from support.paths import ROOT

WORDS = {
    r"said|say|says|saying": "print, report, state",
    r"told|tell|tells|telling": "report, return, distinguish",
    r"hear|hears|heard|hearing|listens?|aloud": "record, receive",
    r"speak|speaks|spoke|speaking": "use 'evidence for/against'",
    r"ask|asks|asked|asking": "request, query, run, require",
    r"beside|besides": "next to, in addition to",
    r"whole": "entire, full, complete",
    r"stands? for|stood for|standing for": "represent, mean",
    r"left out|leaves? out|leaving out": "skip, omit",
    r"gives? back|given back|gave back|hands? back|comes? back|came back": "return",
    r"(of|on) (its|their|his|your) own": "separate, specific (or delete)",
    r"by itself|by themselves": "alone, separately",
    r"no matter": "regardless of",
    r"wish|wishes|wished": "request",
    r"news": "events",
    r"likeness": "similarity, correlation",
    r"nothing is": "use a verb: 'does not ...'",
    r"no more than": "at most",
    r"as it is|as they are": "unchanged",
    r"wants?|wanted": "require, request",
    r"pictures?": "image (or figure, drawing)",
    r"made of|made from": "consists of, computed from",
    r"forgets?|forgot|forgotten": "drop, discard",
    r"anew": "again",
    r"at the prompt": "on the command line",
    r"go(es|ing)? on( with)?": "continue, resume",
}
SKIPPED = ("docs/images", "src/seewhy/images/data", "docs/errors.md")  # docs/errors.md is generated from the source
SUFFIXES = {".py", ".md", ".js", ".html", ".css", ".json"}

# (file, matched phrase in lower case): count. Each is a use that a native technical writer would make.
ALLOWED: dict[tuple[str, str], int] = {
    ("benchmarks/disagreements.py", "pictures"): 1,
    ("benchmarks/overlay_colors.py", "pictures"): 1,
    ("benchmarks/process.py", "pictures"): 1,
    ("README.md", "asked"): 1,
    ("CHANGELOG.md", "asked"): 1,
    ("docs/index.md", "asked"): 2,
    ("docs/make_real_networks.py", "pictures"): 1,
    ("src/seewhy/bulk/decoding.py", "on its own"): 1,
    ("src/seewhy/cli/run_options.py", "on its own"): 1,
    ("src/seewhy/cli/serve.py", "listen"): 1,
    ("src/seewhy/cli/serve.py", "listens"): 1,
    ("src/seewhy/engine/inputs.py", "made from"): 2,
    ("src/seewhy/explanation/maps.py", "as they are"): 1,
    ("src/seewhy/explanation/result.py", "made from"): 1,
    ("src/seewhy/models/downloads.py", "tell"): 2,
    ("src/seewhy/tensors/nested.py", "nothing is"): 1,
    ("src/seewhy/server/__init__.py", "listen"): 1,
    ("src/seewhy/server/work_queue.py", "as it is"): 1,
    ("src/seewhy/tracing/function_modes.py", "nothing is"): 1,
    ("src/seewhy/tracing/torch_private.py", "of its own"): 1,
    ("src/seewhy/viewer/maps.js", "nothing is"): 1,
    ("src/seewhy/viewer/summary.js", "nothing is"): 1,
}


def files() -> list[Path]:
    roots = [ROOT / "src", ROOT / "docs", *ROOT.glob("*.md"), ROOT / "benchmarks"]
    found = [path for root in roots for path in ([root] if root.is_file() else sorted(root.rglob("*")))]
    return [path for path in found if path.suffix in SUFFIXES and not is_skipped(path)]


def is_skipped(path: Path) -> bool:
    relative = path.relative_to(ROOT).as_posix()
    return relative.startswith(SKIPPED) or "__pycache__" in relative or path.stat().st_size > 500_000


def read(path: Path) -> str:
    """Return the text of a file; in CHANGELOG.md without tables, which quote old names."""
    text = path.read_text("utf-8")
    return re.sub(r"^\|.*$", "", text, flags=re.MULTILINE) if path.name == "CHANGELOG.md" else text


def matches(text: str) -> dict[str, list[int]]:
    """Return the lines of each match. Words inside an identifier do not match: `said` does, `_said` and `saidMap` do not."""
    found: dict[str, list[int]] = {}
    for word in WORDS:
        for match in re.finditer(rf"(?<![\w-])({word})(?![\w-])", text, re.IGNORECASE):
            found.setdefault(match[0].lower(), []).append(text.count("\n", 0, match.start()) + 1)
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_plain_words(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    problems = []
    for phrase, lines in matches(read(path)).items():
        if len(lines) > ALLOWED.get((name, phrase), 0):
            advice = next(advice for word, advice in WORDS.items() if re.fullmatch(word, phrase, re.IGNORECASE))
            problems.append(f"{name}:{','.join(map(str, lines))}: '{phrase}' (instead: {advice})")
    assert not problems, "\n" + "\n".join(problems)


def test_no_exception_is_stale() -> None:
    """Every entry of ALLOWED is still needed, with exactly this count."""
    actual = Counter(
        {
            (path.relative_to(ROOT).as_posix(), phrase): len(lines)
            for path in files()
            for phrase, lines in matches(read(path)).items()
        }
    )
    assert {key: actual[key] for key in ALLOWED} == ALLOWED
