"""Type aliases: what `load_image` accepts and returns."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ImageArray = NDArray[np.uint8]
"""An image as uint8 (H, W, 3): upright, sRGB."""

ImageSource = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[Any]
"""What `load_image` reads: a path, the bytes of a file, a file opened in binary mode, a PIL image or a NumPy array."""
