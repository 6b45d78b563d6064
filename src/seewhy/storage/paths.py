"""Output folders of images, file names that are valid on every system, and checks that no output replaces an input."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from seewhy.errors import UsageError, os_error_reason

MAX_BYTES = 120  # of a name; file systems allow 255, and names get prefixes and suffixes or are joined in pairs
RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def safe_name(text: str, limit: int = 80) -> str:
    """Convert `text` to a file name: letters and digits of any script and "._+-"; no names reserved by Windows.

    It has at most `limit` characters, and at most `MAX_BYTES` bytes in UTF-8.

    >>> safe_name("Egyptian cat"), safe_name("../x:y"), safe_name("con")
    ('Egyptian_cat', '_x_y', '_con')
    """
    name = re.sub(r"[^\w.+-]+", "_", unicodedata.normalize("NFC", text)).lstrip(".")[:limit]
    name = name.encode("utf-8", "replace")[:MAX_BYTES].decode("utf-8", "ignore").rstrip(". ")
    return f"_{name}" if not name or RESERVED_ON_WINDOWS.fullmatch(name) else name


def path_text(path: str) -> str:
    """Return a path as valid text: bytes that are not UTF-8 become `\\xff`.

    >>> path_text("caf\\udce9.jpg")
    'caf\\\\xe9.jpg'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def output_paths(out: Path, images: Sequence[str]) -> list[Path]:
    """Return a folder below `out` for each image: its path below the common root, without the suffix.

    The suffix is kept where two images would share a folder. Remaining duplicates are numbered, and no folder has the name of
    the index page.

    >>> [path.as_posix() for path in output_paths(Path("cam"), ["in/a.jpg", "in/sub/a.jpg", "in/a.png"])]
    ['cam/a.jpg', 'cam/sub/a', 'cam/a.png']
    """
    paths = [PurePath("stdin") if image == "-" else PurePath(os.path.abspath(image)) for image in images]
    files = [path for path in paths if path.is_absolute()]
    drives = {path.drive for path in files}
    root = PurePath(os.path.commonpath([path.parent for path in files])) if len(drives) == 1 else None
    relative = [path.relative_to(root) if root and path.is_absolute() else PurePath(path.name) for path in paths]
    short = [safe_path(path.with_suffix("")) for path in relative]
    full = [safe_path(path) for path in relative]
    # An image's folder must not contain the folder of another image.
    uses = Counter(short) + Counter(parent for path in short for parent in path.parents)
    names = [full[i] if uses[short[i]] > 1 else short[i] for i in range(len(short))]
    return [out / name for name in number_duplicates(names)]


def safe_path(path: PurePath) -> PurePath:
    """Return a relative path of safe names that does not start with the name of the index page."""
    first, *others = map(safe_name, path.parts)
    return PurePath(f"_{first}" if first.casefold() == "index.html" else first, *others)


def check_overwrite(outputs: Iterable[Path], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Raise UsageError if an output is an input: the same file, also through a link or in other letter case. "-" is stdin.

    Inputs that do not exist are skipped. If no output exists yet, no input is looked up.
    """
    existing = {identity: path for path in outputs if (identity := file_identity(path)) is not None}
    if not existing:
        return
    for source in inputs:
        if (identity := file_identity(source)) is not None and (path := existing.get(identity)) is not None:
            name = "stdin" if source == "-" else os.fspath(source)
            raise UsageError(f"the output {path} would overwrite the input {name}. Choose another output folder.")


def file_identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return the device and the inode of an existing file; None if there is none, or for a folder."""
    try:
        status = os.stat(0 if path == "-" else path)
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return None
    return None if stat.S_ISDIR(status.st_mode) else (status.st_dev, status.st_ino)


def check_folders(folders: Iterable[Path]) -> None:
    """Raise UsageError if a folder cannot be created, or written if it exists: a folder above it may be a file."""
    checked: set[Path] = set()
    for folder in folders:
        check_null(folder)
        for path in (folder, *folder.parents):
            if path in checked:
                break
            checked.add(path)
            if exists(path):
                if not os.path.isdir(path):
                    raise UsageError(
                        f"{path} is not a folder, so nothing can be written below it. Choose another folder."
                    )
                if not os.access(path, os.W_OK | os.X_OK):
                    raise UsageError(f"{path}: cannot be written (permission denied). Choose another folder.")
                break


def exists(path: Path) -> bool:
    """Return True if a path exists, also as a broken link. Raises UsageError if it cannot exist (a name too long)."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({os_error_reason(error)}). Choose another folder.") from None
    return True


def number_duplicates(names: Sequence[PurePath]) -> list[PurePath]:
    """Append "_2", "_3", ... to repeated names, ignoring case like some file systems.

    >>> [path.name for path in number_duplicates([PurePath("a"), PurePath("A"), PurePath("a")])]
    ['a', 'A_2', 'a_3']
    """
    used: set[str] = set()
    counts: Counter[str] = Counter()
    unique = []
    for name in names:
        candidate, key = name, str(name).casefold()
        while str(candidate).casefold() in used:
            counts[key] += 1
            candidate = name.with_name(f"{name.name}_{counts[key] + 1}")
        used.add(str(candidate).casefold())
        unique.append(candidate)
    return unique


def check_null(path: Path) -> None:
    """Raise UsageError for a path with a null character, which no file system allows."""
    if "\0" in os.fspath(path):
        raise UsageError(f"{os.fspath(path)!r} is not a valid file name: it contains a null character.")


def check_named(folder: str | os.PathLike[str]) -> None:
    """Raise UsageError for an empty name, which `Path` would read as the current folder."""
    if not os.fspath(folder):
        raise UsageError("the name of the folder is empty. Pass a folder, or '.' for the current one.")


def is_inside(folder: Path, root: Path) -> bool:
    """Return True if `folder` is `root` or below it, also after links are followed."""
    check_null(folder)
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(root))


def check_inside(folder: Path, root: Path) -> None:
    """Raise UsageError if a link leads from below `root` to another place."""
    if not is_inside(folder, root):
        raise UsageError(
            f"{folder} leads out of {root} through a link, so seewhy does not write there. Remove the link, or choose another "
            "output folder."
        )
