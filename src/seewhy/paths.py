"""Where a picture's results go: a folder for each picture, and file names that are safe on every system."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def safe_name(text: str, longest: int = 80) -> str:
    """`text` as a file name: letters and digits of any script and "._+-", nothing that Windows reserves.

    >>> safe_name("Egyptian cat"), safe_name("../x:y"), safe_name("con")
    ('Egyptian_cat', '_x_y', '_con')
    """
    name = re.sub(r"[^\w.+-]+", "_", unicodedata.normalize("NFC", text)).lstrip(".").rstrip(". ")[:longest]
    name = name.encode("utf-8", "replace").decode()
    return f"_{name}" if not name or RESERVED.fullmatch(name) else name


def output_paths(out: Path, pictures: Sequence[str]) -> list[Path]:
    """A folder below `out` for each picture: its path below the common root, without the extension.

    The extension stays where two pictures would share a folder; what still clashes is numbered.

    >>> [path.as_posix() for path in output_paths(Path("cam"), ["in/a.jpg", "in/sub/a.jpg", "in/a.png"])]
    ['cam/a.jpg', 'cam/sub/a', 'cam/a.png']
    """
    paths = [PurePath("stdin") if picture == "-" else PurePath(os.path.abspath(picture)) for picture in pictures]
    files = [path for path in paths if path.is_absolute()]
    drives = {path.drive for path in files}
    root = PurePath(os.path.commonpath([path.parent for path in files])) if len(drives) == 1 else None
    below = [path.relative_to(root) if root and path.is_absolute() else PurePath(path.name) for path in paths]
    bare = [PurePath(*map(safe_name, path.with_suffix("").parts)) for path in below]
    full = [PurePath(*map(safe_name, path.parts)) for path in below]
    # A folder that holds another picture's folder would mix the two.
    taken = Counter(bare) + Counter(parent for path in bare for parent in path.parents)
    names = [full[i] if taken[bare[i]] > 1 else bare[i] for i in range(len(bare))]
    return [out / name for name in number_duplicates(names)]


def number_duplicates(names: Sequence[PurePath]) -> list[PurePath]:
    seen: set[str] = set()
    result = []
    for name in names:
        new, count = name, 1
        while str(new).casefold() in seen:  # some file systems ignore case
            count += 1
            new = name.with_name(f"{name.name}_{count}")
        seen.add(str(new).casefold())
        result.append(new)
    return result
