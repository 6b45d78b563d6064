"""Write docs/methods.md: the references of all methods, between the text of docs/methods.in.md.

Usage: .venv/bin/python docs/make_methods.py
"""

from __future__ import annotations

from pathlib import Path

from seewhy.methods.cards import cards, markdown

HERE = Path(__file__).parent


def page() -> str:
    """Return the full page."""
    text = (HERE / "methods.in.md").read_text("utf-8")
    differences = (HERE.parent / "benchmarks" / "DISAGREEMENTS.md").read_text("utf-8").partition("\n\n")[2]
    return text.replace("{{ methods }}\n", markdown(cards())).replace("{{ disagreements }}\n", differences)


if __name__ == "__main__":
    (HERE / "methods.md").write_text(page(), "utf-8")
