"""Parse methods as text: "scorecam(batch_size=64)", "smooth(layercam, samples=16)". Imports no torch."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Any

from seewhy.errors import MethodError, UnknownName, UsageError
from seewhy.methods.catalog import MethodEntry, find_method

# A quoted string or a bare word, and the bracket or equals sign after it.
_WORD = re.compile(r"""('[^']*'|"[^"]*"|[^()\[\],='"]+)([(=]?)""")
_TARGET_KIND = re.compile(r"\s*[A-Za-z]+(\[\w+\])?:")  # "box:", "region[2]:"


@dataclass(frozen=True)
class MethodText:
    """A parsed method: its catalog entry, positional arguments and settings by name.

    A bare word may be a method's name and a setting's value ("gradcam" is a variant of Score-CAM), so the `word` is kept.
    """

    entry: MethodEntry
    arguments: tuple[Any, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    word: str = ""


def parse_method(text: str) -> MethodText:
    """Parse a method name with optional settings. A setting's value is a Python literal, a method, or a bare word.

    Raises:
        UnknownName: The name is not in the catalog.
        UsageError: The text is not a name, or a name with settings in brackets.
        MethodError: A setting is given twice.

    >>> parsed = parse_method("smooth(gradcam++, samples=16)")
    >>> parsed.entry.name, parsed.arguments[0].entry.name, parsed.settings
    ('smooth', 'gradcam++', {'samples': 16})
    """
    name, bracket, _ = text.strip().partition("(")
    entry = find_method(name)
    if not bracket:
        return MethodText(entry, word=text.strip())
    try:
        return _convert(ast.parse(_quote_words(text.strip()), mode="eval").body)  # type: ignore[no-any-return]
    except SyntaxError as error:
        reason = "a bracket is not closed" if "never closed" in error.msg else error.msg
    except ValueError:  # from literal_eval
        reason = "it is not a name with settings in brackets"
    raise UsageError(f"method '{text}': {reason}. Write settings as in {entry.name}(name=value).")


def _quote_words(text: str) -> str:
    """Turn the text into a Python expression: quote bare words, and write a call `name(...)` as `_("name")(...)`.

    >>> _quote_words("sscam(on=map, sigma=-1)")
    "_('sscam')(on='map',sigma=-1)"
    """

    def quote(match: re.Match[str]) -> str:
        word, sign = match[1].strip(), match[2]
        if not word:
            return match[0]
        if sign == "(":
            return f"_({word!r})("
        if sign == "=" and word.isidentifier():
            return f"{word}="
        return (word if _is_literal(word) else repr(word)) + sign

    return _WORD.sub(quote, text)


def _is_literal(word: str) -> bool:
    try:
        ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return False
    return True


def _convert(node: ast.expr) -> Any:
    """Return a method, a literal, or a word that is neither. Raises ValueError for any other expression."""
    match node:
        case ast.Call(ast.Call(ast.Name("_"), [ast.Constant(str() as word)])):
            arguments = tuple(map(_convert, node.args))
            settings: dict[str, Any] = {}
            for keyword in node.keywords:
                name = str(keyword.arg)
                if name in settings:
                    raise MethodError(word, f"the setting {name} is given twice.")
                settings[name] = _convert(keyword.value)
            return MethodText(find_method(word), arguments, settings, word)
        case ast.Constant(str() as word):
            try:
                return MethodText(find_method(word), word=word)
            except UnknownName:
                return word
    return ast.literal_eval(node)


def split_at_commas(text: str) -> list[str]:
    """Split at the commas outside of brackets.

    >>> split_at_commas("a, b(c,d)")
    ['a', 'b(c,d)']
    """
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def split_values(values: list[str] | None) -> list[str]:
    """Split the values of a command-line option at the commas outside of brackets."""
    return [part for value in values or [] for part in split_at_commas(value)]


def split_targets(values: list[str] | None) -> list[str]:
    """Split targets the same way, but not a target with a kind prefix such as "box:person@1,2,3,4"."""
    parts = []
    for value in values or []:
        parts += [value] if _TARGET_KIND.match(value) else split_at_commas(value)
    return parts
