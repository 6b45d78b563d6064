"""Write the list of all error messages at the end of docs/errors.md, read from the source: python docs/make_errors.py"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "seewhy"
PAGE = ROOT / "docs" / "errors.md"
START = "## All messages\n"
INTRODUCTION = (
    "Generated from the source by [make_errors.py](make_errors.py). Words in braces are placeholders: search for the text "
    "around them. A slash separates alternatives. Errors about one model, layer, target or method start with its name.\n"
)
ERRORS = re.compile(r"(Image|Usage|Option|Model|Offline|Layer|Target|Method|Choice|NoCurvature)Error|UnknownName")


def constants(tree: ast.Module) -> dict[str, str]:
    """Return the texts that a file assigns to names in capitals."""
    return {
        node.targets[0].id: text
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper()
        if (text := message_text(node.value))
    }


def insert_constants(tree: ast.Module) -> ast.Module:
    """Replace names of text constants by their texts, so that messages are complete."""
    texts = constants(tree)

    class Insert(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.Constant(texts[node.id]) if isinstance(node.ctx, ast.Load) and node.id in texts else node

    return Insert().visit(tree)


def message_text(node: ast.expr) -> str:
    """Return a message with placeholders in words, or "" if the expression is not a text."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(
                f"{{{placeholder(value.value)}}}"
                if isinstance(value, ast.FormattedValue) and not isinstance(value.value, ast.Constant)
                else message_text(value.value if isinstance(value, ast.FormattedValue) else value)
                for value in values
            )
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return message_text(left) + message_text(right)
        case ast.IfExp(body=body, orelse=other):
            texts = [text for text in (message_text(body), message_text(other)) if text]
            return " / ".join(texts)
    return ""


def placeholder(node: ast.expr) -> str:
    """Return what a value in a message is, in words.

    >>> codes = ("', '.join(labels)", "type(x).__name__", "len(row['ids'])")
    >>> [placeholder(ast.parse(code, mode="eval").body) for code in codes]
    ['labels', 'type of x', 'number of ids']
    """
    match node:
        case ast.Name(id=name):
            return words(name)
        case ast.Constant(value=value):
            return str(value)
        case ast.Attribute(value=ast.Call(func=ast.Name(id="type"), args=[inner]), attr="__name__"):
            return f"type of {placeholder(inner)}"
        case ast.Attribute(value=inner, attr="__name__" | "name"):
            return f"name of {placeholder(inner)}" if not is_self(inner) else "name"
        case ast.Attribute(value=inner, attr=name):
            return words(name)
        case ast.Subscript(slice=ast.Constant(value=str(key))):
            return words(key)
        case ast.Subscript(value=inner):
            return placeholder(inner)
        case ast.Call(func=ast.Name(id="len"), args=[inner]):
            return f"number of {'images' if is_self(inner) else placeholder(inner)}"
        case ast.Call(args=[inner, *_]):
            return placeholder(inner)
        case ast.Call(func=ast.Attribute(value=inner)):
            return placeholder(inner)
        case ast.Call(func=ast.Name(id=name)):
            return words(name)
        case ast.GeneratorExp(elt=inner) | ast.ListComp(elt=inner) | ast.Starred(value=inner) | ast.Await(value=inner):
            return placeholder(inner)
        case ast.JoinedStr():
            return message_text(node).replace("{", "").replace("}", "")
        case ast.BinOp(left=left, right=right):
            return placeholder(right if isinstance(left, ast.Constant) else left)
        case ast.UnaryOp(operand=inner):
            return placeholder(inner)
        case ast.IfExp(body=body, orelse=other):
            texts = [text for text in (placeholder(body), placeholder(other)) if text]
            return " / ".join(dict.fromkeys(texts))
        case ast.BoolOp(values=values):
            return " / ".join(dict.fromkeys(placeholder(value) for value in values))
        case ast.NamedExpr(value=inner):
            return placeholder(inner)
    return "value"


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def words(name: str) -> str:
    return name.strip("_").replace("_", " ").lower() or "option"


def messages(path: Path) -> list[tuple[str, str]]:
    """Return (error class, message) for each error that a file raises with its own message, in the order of the file."""
    found = []
    for node in ast.walk(insert_constants(ast.parse(path.read_text("utf-8")))):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
            continue
        name = ast.unparse(node.exc.func)
        if not ERRORS.fullmatch(name):
            continue
        arguments = [*node.exc.args, *(keyword.value for keyword in node.exc.keywords)]
        texts = [message_text(argument) for argument in arguments]
        longest = max(texts, key=len, default="")
        if name == "UnknownName" and texts and texts[0]:
            hint = longest if longest != texts[0] and " " in longest else ""
            found.append(
                (node.lineno, name, f"no {texts[0]} '{{name}}' - did you mean {{close matches}}? {hint}".strip())
            )
        elif " " in longest:
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
