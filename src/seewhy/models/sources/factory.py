"""`package.module:factory`: a network from the user's own code, which runs only where the user said so."""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn

from seewhy.errors import ModelError, find_close_matches
from seewhy.models.weights import shorten_error

FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
WORDS = {"true": True, "false": False, "none": None}


def call_factory(name: str, options: Mapping[str, str], *, allowed: bool) -> Any:
    """What `module:function` gives, called with the options as keyword arguments; an nn.Module or a LoadedModel.

    >>> call_factory("torch.nn:Linear", {"in_features": "2", "out_features": "3"}, allowed=True)
    Linear(in_features=2, out_features=3, bias=True)
    """
    if not allowed:
        raise ModelError(name, "runs code of that module; where you trust it, say so: --allow-code, or allow_code=True")
    module, _, attribute = name.partition(":")
    folder = os.getcwd()
    sys.path.insert(0, folder)  # a console script, unlike python, does not look in the current folder
    try:
        found = importlib.import_module(module)
        if not callable(function := getattr(found, attribute, None)):
            close = find_close_matches(attribute, [key for key, value in vars(found).items() if callable(value)])
            guess = f"did you mean {' or '.join(map(repr, close))}?" if close else "check the name"
            raise ModelError(name, f"{module} has no function '{attribute}' - {guess}")
        made = function(**{key: value_of(text) for key, text in options.items()})
    except ModelError:
        raise
    except Exception as error:  # anything, for it is the user's code
        raise ModelError(name, f"failed with {type(error).__name__}: {shorten_error(error)}; try it in Python") from None
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return made.eval() if isinstance(made, nn.Module) else made


def value_of(text: str) -> Any:
    """
    >>> value_of("7"), value_of("true"), value_of("resnet18"), value_of("(1, 2)")
    (7, True, 'resnet18', (1, 2))
    """
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
