"""Close matches for unknown keyword arguments of public functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from seewhy.errors import find_close_matches

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def suggest_keywords(
    renamed: Mapping[str, str],
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Let a function name the right parameter when it is called with an unknown one.

    `renamed` maps old names to new ones. The TypeError is the one Python raises, with a hint added.

    >>> @suggest_keywords({"site": "read_at"})
    ... def explain(*, read_at="convolution", layers=None): ...
    >>> explain(site="act")
    Traceback (most recent call last):
    TypeError: explain() got an unexpected keyword argument 'site'; it is now 'read_at'
    >>> explain(layer="conv1")
    Traceback (most recent call last):
    TypeError: explain() got an unexpected keyword argument 'layer'; did you mean 'layers'?
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        names = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            for name in kwargs:
                if name not in names:
                    words = [word for word in reversed(name.split("_")) if word in names]  # target_layers: layers
                    close = words or find_close_matches(name, names, 1)
                    hint = (
                        f"it is now {renamed[name]!r}"
                        if name in renamed
                        else f"did you mean {close[0]!r}?"
                        if close
                        else ""
                    )
                    message = f"{function.__name__}() got an unexpected keyword argument {name!r}"
                    raise TypeError(f"{message}; {hint}" if hint else message)
            return function(*args, **kwargs)

        return checked

    return decorate
