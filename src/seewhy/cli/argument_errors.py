"""Errors of the command line itself, as one line: the option, the given value, and the accepted values.

Replaces the messages of the parser ("unable to convert "50%" into float"), and finds mistakes that it does not see: a long
option with one dash, which it reads as a short option with a value, and empty arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import Parameter, Token
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from seewhy.cli.run_options import DrawingOptions, MetricOptions, OutputOptions, UseOptions
from seewhy.engine.options import ModelOptions, Options, flag_name, flags
from seewhy.errors import OptionError, UsageError, find_close_matches, one_line

RENAMED = {"--site": "--read-at", "--question": "--target"}
EXAMPLES = {"export": "seewhy export run --to png --out maps"}
ONE_DASH = re.compile(r"-([A-Za-z][\w-]{2,})(=.*)?", re.DOTALL)
PREFIX = 5  # characters of a long option with one dash from which a prefix is recognized: "-layer"
MAX_VALUE = 80  # characters of a value in a message
UNITS = {"k": 1000, "m": 1_000_000}


def main_flags() -> list[str]:
    """Return the long options of the main command."""
    classes = (Options, ModelOptions, DrawingOptions, OutputOptions, UseOptions)
    return [flag_name(name, flag) for one in classes for name, _, flag in flags(one) if name != "channels"]


def list_flags() -> set[str]:
    """Return the long and short names of the options whose values are lists."""
    both = [*flags(Options), *flags(MetricOptions)]
    lists = [(name, flag) for name, _, flag in both if flag.kind in ("names", "targets")]
    return {spelling for name, flag in lists for spelling in (flag_name(name, flag), flag.short) if spelling}


def check_lists(words: Sequence[str]) -> None:
    """Raise UsageError for values of a list that are separated by spaces: `--methods gradcam layercam`."""
    names = list_flags()
    for option, value, word in zip(words, words[1:], words[2:], strict=False):
        if option == "--":
            return
        if option not in names or value.startswith("-") or word.startswith("-"):
            continue
        if not os.path.lexists(word) and "." not in os.path.basename(word) and "*" not in word:
            raise UsageError(
                f"{word}: no such file. If it is a value of {option}, separate values with commas: {option} {value},{word}"
            )


def check_words(words: Sequence[str]) -> None:
    """Raise UsageError for a long option with one dash, and for an empty argument, as of an unset shell variable."""
    check_lists(words)
    names = main_flags()
    for before, word in zip(["", *words], words, strict=False):
        if before == "--":
            return
        if not word or (word.startswith("--") and word.endswith("=")):
            option = before if not word else word.rstrip("=")
            place = f"{option} '': " if option.startswith("-") else "'': "
            raise UsageError(
                f"{place}this argument is empty. Give a value, or omit it (is a variable of the shell unset?)"
            )
        if match := ONE_DASH.fullmatch(word):
            text = f"-{match[0].partition('=')[0]}"
            if found := next(
                (name for name in names if name == text or (len(text) > PREFIX and name.startswith(text))), ""
            ):
                raise UsageError(f"{match[0]}: an option with a long name has two dashes: {found}")


def describe_option_error(error: OptionError) -> str:
    """Return the message of an error with the option as on the command line.

    >>> describe_option_error(OptionError("batch_size", 0, "give at least 1."))
    '--batch-size 0: give at least 1.'
    """
    value = f"{error.value:g}" if isinstance(error.value, float) else shorten(str(error.value))
    return f"--{error.option.replace('_', '-')} {value}: {error.reason}"


def shorten(value: str) -> str:
    return value if len(value) <= MAX_VALUE else f"{value[: MAX_VALUE - 1]}…"


def describe_argument_error(error: CycloptsError) -> str:
    """Return an error of the parser in one line."""
    match error:
        case UnknownOptionError():
            return describe_unknown_option(error)
        case UnusedCliTokensError(unused_tokens=list(words)):
            return describe_unused_words(" ".join(error.command_chain or ()), words)
        case MissingArgumentError(argument=argument) if argument is not None:
            return describe_missing_argument(error)
        case CoercionError(token=Token() as token) if error.msg is None and token.keyword:
            return f"{token.keyword} {shorten(token.value)}: {describe_accepted(token.value, error.target_type)}"
    return one_line(error)


def describe_unknown_option(error: UnknownOptionError) -> str:
    """Return what an option that a command does not have is called now, or which command has it."""
    name = (error.token.keyword or error.token.value).partition("=")[0]
    if name in RENAMED:
        return f"Unknown option: {name}. It is now {RENAMED[name]}."
    command = " ".join(error.command_chain or ())
    if command and name in main_flags():
        return f"{command} has no option {name}; the main command has it: seewhy photo.jpg {name}"
    return one_line(error)


def describe_unused_words(command: str, words: Sequence[str]) -> str:
    """Return why a command cannot use more arguments."""
    advice = "start it and drop the image into the page" if command == "serve" else f"see seewhy {command} --help"
    return f"{' '.join(words)}: seewhy {command} takes no such argument; {advice}"


def describe_missing_argument(error: MissingArgumentError) -> str:
    """Return which option or argument has no value, with its help text and an example."""
    assert error.argument is not None
    command = " ".join(error.command_chain or ())
    name = error.keyword or error.argument.name
    help_text = (error.argument.parameter.help or "").strip()
    is_given = error.keyword is not None or any(token.keyword for token in error.argument.tokens)
    problem = f"{name} needs a value" if is_given else f"{command or 'seewhy'} needs {name}"
    example = f" For example: {EXAMPLES[command]}" if command in EXAMPLES else ""
    return f"{problem}{f': {help_text}' if help_text else '.'}{example}"


def describe_accepted(value: str, kind: Any) -> str:
    """Return what an option accepts instead of a value.

    >>> describe_accepted("50%", float), describe_accepted("10M", int)
    ('give a number, such as 0.5.', 'give an integer, such as 10000000.')
    >>> describe_accepted("strech", Literal["crop", "squash"])
    'choose crop or squash.'
    """
    if get_origin(kind) is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        guess = f" Did you mean {matches[0]}?" if (matches := find_close_matches(value, choices, 1)) else ""
        return f"choose {', '.join(choices[:-1])} or {choices[-1]}.{guess}"
    if kind is bool:
        return "this option takes no value."
    if kind in (int, float):
        return f"give {'an integer' if kind is int else 'a number'}{suggest_number(value, kind)}."
    return f"this value cannot be read as {getattr(kind, '__name__', kind)}."


def suggest_number(value: str, kind: type) -> str:
    """Return a number that the user may have meant, or ""."""
    if match := re.fullmatch(r"(\d+(?:[.,]\d+)?)\s*([%kKmM]?)", value.strip()):
        number = float(match[1].replace(",", "."))
        number = number / 100 if match[2] == "%" else number * UNITS.get(match[2].lower(), 1)
        if kind is float or number.is_integer():
            return f", such as {number:.15g}"
    return ""


def parse_integer(kind: Any, tokens: Sequence[Token]) -> int:
    """Convert the value of an option to an integer. The parser alone would round 1.5 to 2."""
    (token,) = tokens
    try:
        number = float(token.value) if "." in token.value else int(token.value)
        if number == int(number):
            return int(number)
    except (ValueError, OverflowError):  # OverflowError: infinity
        pass
    raise CoercionError(token=token, target_type=int)


Integer = Annotated[int, Parameter(converter=parse_integer)]
