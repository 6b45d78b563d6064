"""Attention weights (B, heads, queries, keys) can have the shape of a grid by chance, but are never the suggested layer."""

from __future__ import annotations

import pytest
import torch
import transformers as tf

import seewhy
from support import listed_networks as tiny


@pytest.mark.parametrize("count", [1, 4])
def test_words_of_a_caption_are_explained_in_the_image(count: int) -> None:
    """Of 1 token, weights (1, 2, 1, 17) fit a grid of 2 heads by 1 query; of 4 tokens, (1, 2, 4, 4) fits that of the image."""
    torch.manual_seed(0)
    model = tf.BlipForConditionalGeneration(tiny.blip()).eval()
    tokens = torch.tensor([[0, 5, 7, 8]])[:, :count]
    e = seewhy.explain(model, {"pixel_values": torch.randn(1, 3, 64, 64), "input_ids": tokens}, targets=9)
    assert e.layers == ("vision_model.post_layernorm#1",) and e.map().shape == (1, 4, 4)


def test_a_softmax_over_columns_is_no_suggestion() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.weights = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Softmax(-1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features = self.conv(images)
            return (self.weights(features) * features).mean((2, 3))

    assert seewhy.suggest(Net(), torch.rand(1, 3, 8, 8)).layer == "conv"
