"""Folders from which the user allowed code to run (`--allow-code`). Imports no torch, so decoder processes can read it."""

from __future__ import annotations

permitted_folders: list[str] = []
