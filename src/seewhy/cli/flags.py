"""Command-line flags generated from the fields of options classes, so that each option is described once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from seewhy.cli.argument_errors import parse_integer
from seewhy.cli.exits import STDIN
from seewhy.engine.options import Flag, ModelOptions, Options, flag_name, flags
from seewhy.methods.method_text import split_targets, split_values

GROUPS: dict[type, Group] = {
    Options: Group("What to explain", sort_key=1),
    ModelOptions: Group("Model", sort_key=2),
}
OTHER = Group("Output", sort_key=4)
TYPES: dict[str, Any] = {
    "names": list[str],
    "targets": list[str],
    "text": str,
    "number": int,
    "decimal": float,
    "switch": bool,
    "path": Path,
}
LISTS: dict[str, Callable[[list[str] | None], list[str]]] = {"names": split_values, "targets": split_targets}


@dataclass(frozen=True)
class FlagSet:
    """The flags of some fields of an options class, under one heading of the help page."""

    options: type
    only: tuple[str, ...] = ()  # all fields if empty
    skip: tuple[str, ...] = ()
    group: Group | None = None
    defaults: tuple[tuple[str, Any], ...] = ()  # where a command differs from the class

    def parameters(self) -> list[inspect.Parameter]:
        """Return one keyword parameter for each flag, in the form that cyclopts expects."""
        group = self.group or GROUPS.get(self.options, OTHER)
        changed = dict(self.defaults)
        return [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=changed.get(name, default),
                annotation=annotation(name, changed.get(name, default), flag, group),
            )
            for name, default, flag in flags(self.options)
            if name not in self.skip and (not self.only or name in self.only)
        ]

    def build(self, values: dict[str, Any]) -> Any:
        """Remove this set's values from `values` and return the options object built from them."""
        given = dict(self.defaults)  # a flag that is not used is missing in `values`
        for name, _, flag in flags(self.options):
            if name in values:
                value = restore_dash(values.pop(name))
                given[name] = tuple(LISTS[flag.kind](value)) or None if flag.kind in LISTS else value
        return self.options(**given)


def annotation(name: str, default: Any, flag: Flag, group: Group) -> Any:
    kind = Literal[flag.choices] if flag.choices else TYPES[flag.kind]
    names = [flag_name(name, flag), *([flag.short] if flag.short else [])]
    parameter = Parameter(name=names, group=group, help=flag.help, converter=parse_integer if kind is int else None)
    return Annotated[kind if default is not None else kind | None, parameter]


def with_flags(*sets: FlagSet | type) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Replace a command's options parameters by flags.

    The command takes its positional arguments first, then one options object for each set, in this order.
    """
    flag_sets = [item if isinstance(item, FlagSet) else FlagSet(item) for item in sets]

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())
        positional = own[: len(own) - len(flag_sets)]

        @functools.wraps(command)
        def run(*arguments: str, **values: Any) -> int:
            return command(arguments, *[flag_set.build(values) for flag_set in flag_sets])

        name = positional[0].name
        parameters = [inspect.Parameter(name, inspect.Parameter.VAR_POSITIONAL, annotation=str)]
        for flag_set in flag_sets:
            parameters += flag_set.parameters()
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def from_stdin(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the placeholder for standard input turned back into "-"."""
    return ["-" if argument == STDIN else argument for argument in arguments]


def restore_dash(value: Any) -> Any:
    """Return the value of an option with the placeholder turned back into "-".

    >>> restore_dash(["a", STDIN]), restore_dash(Path(STDIN)), restore_dash(3)
    (['a', '-'], PosixPath('-'), 3)
    """
    if isinstance(value, list):
        return [restore_dash(item) for item in value]
    return type(value)("-") if isinstance(value, str | Path) and str(value) == STDIN else value
