"""Configuration of Sphinx: `make docs` builds the documentation and the API reference into site/, without network access.

The source folder is the root of the repository, so links between README.md, docs/ and benchmarks/ work here and on GitHub.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import seewhy

ROOT = Path(__file__).resolve().parent.parent

project = "seewhy"
author = "The seewhy developers"
copyright = author
release = version = seewhy.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/api/*.md", "benchmarks/*.md"]
exclude_patterns = ["**.in.md", ".*", "site", "build", "dist", "src", "tests"]
source_suffix = {".md": "markdown"}
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"seewhy {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"source_repository": "", "navigation_with_keys": True}

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"  # docstrings use Markdown's single backticks for code
python_use_unqualified_type_names = True
nitpicky = False


def escape_markup(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape characters that reStructuredText reads as markup, so docstrings can use `**options` and `a_` as plain text."""
    for index, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...", "..")):
            continue
        bullet, text = re.match(r"(\s*(?:\* )?)(.*)", line, re.DOTALL).groups()
        parts = re.split(r"(`+[^`]*`+)", text)
        parts[::2] = [re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
        lines[index] = bullet + "".join(parts)


def write_start_page(app: Any, error: Exception | None) -> None:
    """Write site/index.html, which forwards to the start page."""
    if error is None and app.builder.format == "html":
        target = f"{app.config.root_doc}.html"
        head = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={target}">'
        page = f'{head}<a href="{target}">seewhy</a>\n'
        Path(app.outdir, "index.html").write_text(page, "utf-8")


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", escape_markup, priority=400)  # before napoleon, at 500
    app.connect("build-finished", write_start_page)
