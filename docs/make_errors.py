"""Write the list of all error messages at the end of docs/errors.md, read from the source: python docs/make_errors.py"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "seewhy"
PAGE = ROOT / "docs" / "errors.md"
START = "## Every message\n"
INTRODUCTION = (
    "Made by [make_errors.py](make_errors.py) from the source; {words} in braces are filled in. `TargetError` and its like put "
    "what they are about in front.\n"
)
ERRORS = re.compile(r"(Image|Usage|Model|Offline|Layer|Target|Method|Choice)Error|UnknownName")


def text_of(node: ast.expr) -> str:
    """A message as it stands in the source: constants as they are, what is filled in within braces; "" for none."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            parts = (text_of(v) if isinstance(v, ast.Constant) else f"{{{ast.unparse(v.value)}}}" for v in values)  # type: ignore[attr-defined]
            return "".join(parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
        case ast.IfExp(body=body, orelse=other):
            return f"{text_of(body)} / {text_of(other)}"
    return ""


def messages(path: Path) -> list[tuple[str, str]]:
    """(error, message) of every error that a file raises with a message of its own, in order."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func)
            texts = [text_of(argument) for argument in node.exc.args]
            longest = max(texts, key=len, default="")
            if ERRORS.fullmatch(name) and name == "UnknownName" and texts[0]:
                found.append(
                    (
                        node.lineno,
                        name,
                        f"no {texts[0]} '...' - did you mean ...? {longest if longest != texts[0] else ''}".strip(),
                    )
                )
            elif ERRORS.fullmatch(name) and " " in longest:
                found.append((node.lineno, name, longest))
    return [(name, text) for _, name, text in sorted(found)]


def section() -> str:
    lines = [START, INTRODUCTION]
    for path in sorted(SOURCE.rglob("*.py")):
        known = list(dict.fromkeys(messages(path)))
        if known:
            name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
            lines += [f"### {name}\n", "| error | message |", "|---|---|"]
            lines += [f"| `{error}` | {cell(text)} |" for error, text in known]
            lines.append("")
    return "\n".join(lines)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def page() -> str:
    return PAGE.read_text("utf-8").partition(START)[0].rstrip() + "\n\n" + section()


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
