"""The description of the package: README.md, with links that also work on a package index.

A package index does not resolve relative links. `SEEWHY_IMAGES`, which the release workflow sets, is the address of the files
of the released version; without it, the README is used unchanged.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(\]\()(?!\w+:|#)([^)\s]+\))")


def absolute_links(text: str, base: str) -> str:
    """Return Markdown with relative links and images below `base`; pages are shown, not downloaded.

    >>> absolute_links("![a](docs/a.png) [b](docs/b.md) [c](https://c.org)", "https://raw.githubusercontent.com/o/n/v1/")
    '![a](https://raw.githubusercontent.com/o/n/v1/docs/a.png) [b](https://github.com/o/n/blob/v1/docs/b.md) [c](https://c.org)'
    """
    pages = re.sub(r"^https://raw\.githubusercontent\.com/([^/]+/[^/]+)/", r"https://github.com/\1/blob/", base)
    return LINK.sub(lambda match: f"{match[1]}{pages if '.md' in match[2] else base}{match[2]}", text)


class Description(MetadataHookInterface):
    """Sets `readme` of the project's metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text("utf-8")
        base = os.environ.get("SEEWHY_IMAGES", "")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute_links(text, base) if base else text,
        }
