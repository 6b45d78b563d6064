"""Networks that return class scores and maps: plain modules without hooks or gradients, ready for any exporter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from seewhy.integrations.model_export.class_selection import ClassSelection
from seewhy.integrations.model_export.mapped_layer import MappedLayer
from seewhy.integrations.model_export.recording_network import RecordingNetwork, find_shared
from seewhy.integrations.model_export.tail_gradient import TailGradient
from seewhy.targets.class_scores import probabilities
from seewhy.tensors.map_functions import divide_by_max, rectify, resize

MapName = Literal["cam", "hirescam", "gradcam", "reciprocam"]


class MapNetwork(nn.Module):
    """Return `(scores, classes, map)` or `(scores, classes, map, heatmap)` for inputs `(B, C, height, width)`.

    `scores` (B, n) are the network's own, `classes` (B, k) the numbers of the explained classes, `map` (B, k, h, w) their
    signed maps, and `heatmap` (B, k, height, width) the positive part, resized to the input and divided by its maximum.
    """

    def __init__(self, selection: ClassSelection, *, heatmap: bool) -> None:
        super().__init__()
        self.selection = selection
        self.heatmap = heatmap

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        scores, classes, maps = self.explain(inputs)
        if not self.heatmap:
            return scores, classes, maps
        size, count = inputs.shape[2:], maps.shape[1]
        flat = divide_by_max(resize(rectify(maps.flatten(0, 1)), size))
        return scores, classes, maps, flat.reshape(-1, count, *size)

    def explain(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, classes and maps."""
        raise NotImplementedError


class LinearHeadMaps(MapNetwork):
    """Maps in front of mean pooling and a linear head: each is a sum of the head's weights times the activations."""

    def __init__(self, network: RecordingNetwork, method: MapName, selection: ClassSelection, *, heatmap: bool) -> None:
        super().__init__(selection, heatmap=heatmap)
        self.network, self.layer, self.method = network, network.layer, method
        head = self.layer.head
        assert head is not None
        self.has_weight = head.weight is not None
        if head.weight is not None:
            shared = find_shared(network, head.weight)
            self.weight = nn.Parameter(head.weight.cpu(), requires_grad=False) if shared is None else shared
            self.weight_shape = tuple(head.weight.shape)
        if method == "reciprocam":
            self.bias = nn.Parameter(head.bias.cpu(), requires_grad=False)

    def explain(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, output = self.network(inputs)
        classes = self.selection.select(scores)
        activations = self.layer.grid.channels_first(output)
        cells = activations.flatten(2)
        if self.method == "reciprocam":
            maps = self.take(self.class_probabilities(cells), classes)
        else:
            maps = self.weighted_cells(cells, classes)
            if self.method != "cam":  # the mean divides each gradient by the number of cells
                maps = maps / cells.shape[2]
        return scores, classes, maps.reshape(*classes.shape, *activations.shape[2:])

    def weighted_cells(self, cells: Tensor, classes: Tensor) -> Tensor:
        """Return the sum over channels of weights times activations `(B, k, n)`."""
        if not self.has_weight:
            return self.take(cells, classes)
        weight = self.weight.reshape(self.weight_shape)
        return torch.bmm(weight[classes], cells) if self.selection.top else weight[classes[0]] @ cells

    def class_probabilities(self, cells: Tensor) -> Tensor:
        """Return the probabilities `(B, classes, n)` if only one cell is kept, for each cell."""
        weighted = self.weight.reshape(self.weight_shape) @ cells if self.has_weight else cells
        table = (weighted / cells.shape[2]).transpose(1, 2) + self.bias
        flat = table.reshape(-1, table.shape[2])
        kept = probabilities(flat, self.layer.multilabel, normalized=self.layer.normalized)
        return kept.reshape(table.shape).transpose(1, 2)

    def take(self, values: Tensor, classes: Tensor) -> Tensor:
        """Return the rows of some classes `(B, k, n)` from those of all classes `(B, classes, n)`."""
        return values.gather(1, classes[:, :, None].expand(*classes.shape, values.shape[2]))


class GradientMaps(MapNetwork):
    """Maps from the gradient of what follows the layer, which is computed by operations of the graph."""

    def __init__(
        self, tail: TailGradient, layer: MappedLayer, method: MapName, selection: ClassSelection, *, heatmap: bool
    ) -> None:
        super().__init__(selection, heatmap=heatmap)
        self.tail, self.layer, self.method = tail, layer, method

    def explain(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, output, others = self.tail.run(inputs)
        classes = self.selection.select(scores)
        activations = self.layer.grid.channels_first(output)
        maps = [
            self.combine(activations, self.layer.grid.channels_first(self.tail.gradient(output, one, others)))
            for one in one_hot(classes, scores)
        ]
        return scores, classes, torch.stack(maps, 1)

    def combine(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the map `(B, h, w)` of HiResCAM or Grad-CAM."""
        if self.method == "hirescam":
            return (gradients * activations).sum(1)
        weights = gradients.flatten(2).mean(2)
        return torch.bmm(weights[:, None], activations.flatten(2)).reshape(-1, *activations.shape[2:])


def one_hot(classes: Tensor, scores: Tensor) -> Sequence[Tensor]:
    """Return for each of the k explained classes the gradient of its score with respect to all scores, `(B, classes)`."""
    numbers = torch.arange(scores.shape[1], device=scores.device)
    return [(classes[:, i, None] == numbers).to(scores.dtype) for i in range(classes.shape[1])]
