"""Checks of options that need no model: they run before it is loaded or downloaded."""

from __future__ import annotations

from seewhy.engine.options import Options
from seewhy.methods.parsing import as_methods
from seewhy.targets import as_targets
from seewhy.tracing.grid import parse_grid


def check_options(options: Options) -> None:
    """Raise the error for methods, targets or a grid that no model supports, such as a setting out of its range."""
    as_methods(options.methods)
    as_targets(options.targets, options.versus)
    if options.grid is not None:
        parse_grid(options.grid)
