"""`package.module:factory`: a model from the user's own code, which runs only with explicit permission."""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn

from seewhy.errors import ModelError, find_close_matches, join_choices, shorten_error
from seewhy.models.permitted_code import permitted_folders

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
            matches = find_close_matches(attribute, [key for key, value in vars(module).items() if callable(value)])
            guess = f"did you mean {join_choices(matches)}?" if matches else "check the name"
            raise ModelError(name, f"{module_name} has no function '{attribute}' - {guess}")
        model = function(**{key: parse_value(text) for key, text in options.items()})
    except ModelError:
        raise
    except Exception as error:  # user code can raise anything
        raise ModelError(
            name, f"failed with {type(error).__name__}: {shorten_error(error)}; call it in Python to debug it"
        ) from None
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return model.eval() if isinstance(model, nn.Module) else model


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
