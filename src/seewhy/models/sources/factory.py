"""`package.module:factory`: a model from the user's own code, which runs only with explicit permission."""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from seewhy.errors import ModelError, find_close_matches, join_choices, shorten_error
from seewhy.models.permitted_code import permitted_folders
from seewhy.models.sources.architecture import join_first

FACTORY_PATTERN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
CONSTANTS = {"true": True, "false": False, "none": None}


def call_factory(name: str, options: Mapping[str, str], *, allow_code: bool) -> Any:
    """Call `module:function` with the options as keyword arguments and return its result.

    >>> call_factory("torch.nn:Linear", {"in_features": "2", "out_features": "3"}, allow_code=True)
    Linear(in_features=2, out_features=3, bias=True)
    """
    if not allow_code:
        raise ModelError(name, "runs code of that module; if you trust it, pass --allow-code, or allow_code=True")
    module_name, _, attribute = name.partition(":")
    folder = os.getcwd()
    permitted_folders.append(folder)
    sys.path.insert(0, folder)  # console scripts, unlike `python`, do not search the current folder
    try:
        module = importlib.import_module(module_name)
        if not callable(function := getattr(module, attribute, None)):
            raise ModelError(
                name, f"{module_name} has no function '{attribute}' - {suggest_functions(module, attribute)}"
            )
        model = function(**{key: parse_value(text) for key, text in options.items()})
    except ModelError:
        raise
    except ModuleNotFoundError as error:
        raise ModelError(name, describe_missing_module(module_name, error.name or "")) from None
    except Exception as error:  # user code can raise anything
        raise ModelError(
            name, f"failed with {type(error).__name__}: {shorten_error(error)}; call it in Python to debug it"
        ) from None
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return model.eval() if isinstance(model, nn.Module) else model


def suggest_functions(module: ModuleType, name: str) -> str:
    """Return the functions and classes of a module that the user may have meant."""
    names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    if matches := find_close_matches(name, names):
        return f"did you mean {join_choices(matches)}?"
    own = [key for key in names if getattr(vars(module)[key], "__module__", "") == module.__name__]
    return f"it has {join_first(own)}" if own else "check the name"


def describe_missing_module(module: str, missing: str) -> str:
    """Return what to do about a module that Python does not find: that of the user, or one that it imports."""
    if module != missing and not module.startswith(f"{missing}."):
        return f"needs the module {missing}, which Python does not find; install it, or add its folder to PYTHONPATH"
    scripts = [os.path.splitext(name)[0] for name in os.listdir() if name.endswith(".py")]
    matches = find_close_matches(module, scripts, 1)
    guess = f" - did you mean {matches[0]!r}?" if matches else ";"
    return (
        f"there is no module {missing} in this folder or where Python searches{guess} run seewhy in the folder of "
        f"{missing.replace('.', '/')}.py, or add that folder to PYTHONPATH"
    )


def parse_value(text: str) -> Any:
    """
    >>> parse_value("7"), parse_value("true"), parse_value("resnet18"), parse_value("(1, 2)")
    (7, True, 'resnet18', (1, 2))
    """
    if text.lower() in CONSTANTS:
        return CONSTANTS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
