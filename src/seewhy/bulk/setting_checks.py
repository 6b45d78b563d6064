"""Checks of a job's settings that need no model: they run before it is loaded or downloaded."""

from __future__ import annotations

from seewhy.bulk.named_targets import parse_targets
from seewhy.bulk.settings import BulkSettings
from seewhy.methods.parsing import as_methods
from seewhy.targets import as_targets
from seewhy.tracing.grid import parse_grid


def check_settings(settings: BulkSettings) -> None:
    """Raise the error for methods, targets or a grid that no model supports, such as a setting out of its range."""
    as_methods(settings.methods or None)
    parse_targets(settings.targets)
    as_targets(None, settings.versus or None)
    if settings.grid is not None:
        parse_grid(settings.grid)
