"""The messages that libtiff prints for damaged files. They go to file descriptor 2, past `sys.stderr`."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from contextlib import suppress
from pathlib import Path

import PIL

# Of Pillow's wheels for Linux and macOS. On Windows, libtiff is part of Pillow's module; other builds use that of the system.
LIBRARIES = (("../pillow.libs", "libtiff*"), (".dylibs", "libtiff*"))


def hide_libtiff_messages() -> None:
    """Stop the messages of Pillow's libtiff, if seewhy has replaced `sys.stderr`: in its commands, not in a user's program.

    Pillow raises an exception with the reason in addition. File descriptor 2 is not redirected: it belongs to all threads.
    """
    if getattr(sys.stderr, "escapes_control_characters", False):
        remove_handlers()


@functools.cache
def remove_handlers() -> None:
    folder = Path(os.path.dirname(PIL.__file__))
    for path in (path for place, name in LIBRARIES for path in (folder / place).glob(name)):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))  # which Pillow has loaded, so this is the same copy
            for function in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
                function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
                function(None)
