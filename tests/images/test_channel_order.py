"""`Preprocess(channels="BGR")`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seewhy
from seewhy.errors import UnknownName

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)  # of blue, green, red


def test_bgr_images() -> None:
    photo = np.zeros((4, 6, 3), np.uint8)
    photo[..., 0], photo[..., 1], photo[..., 2] = 255, 128, 51
    preprocess = seewhy.Preprocess((4, 4), MEAN, STD, "bilinear", 4, fit="squash", channels="BGR")
    inputs, _ = preprocess(photo)
    expected = (torch.tensor([51, 128, 255]) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(inputs[0, :, 0, 0], expected)
    assert (preprocess.denormalize(inputs[0]) == photo[:, :4]).all()
    padded = seewhy.Preprocess((4, 4), MEAN, STD, "bilinear", (2, 4), rule="contain", channels="BGR")
    # The border has the mean color, here as red, green, blue.
    assert preprocess.denormalize(padded(photo)[0][0])[0, 0].tolist() == [76, 51, 26]


def test_unknown_channel_order() -> None:
    with pytest.raises(UnknownName, match="GRB"):
        seewhy.Preprocess((4, 4), MEAN, STD, "bilinear", 4, channels="GRB")  # type: ignore[arg-type]
