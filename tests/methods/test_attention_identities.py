"""Methods for transformers on attention with one head, where every derivative has a closed form.

A is the output of a layer, G the gradient of the score with respect to A, n the number of cells;
z is a logit, p its probability.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seewhy.methods import (
    AttentionRelevance,
    AttentionRollout,
    GradECLIP,
    LeGrad,
    ViTReciproCAM,
)
from support.catalog_networks import (
    SETTINGS,
    InOne,
    OneHead,
)
from support.identity_maps import maps_of, normalized
from support.identity_networks import (
    close,
    random,
)

LOOKED_AT = random(2, 2, 6, 9, seed=8)


def patches(row: Tensor) -> Tensor:
    """(B, 7), one a token, as a map (B, 2, 3)."""
    return row[:, 1:].reshape(-1, 2, 3)


def test_rollout_of_one_head_is_the_mean_of_attention_and_identity() -> None:
    """Rows of A sum to 1, so A + I divided by its rows is (A + I) / 2; layers multiply, the last from the left."""
    for depth in (1, 2):
        net, rolled = OneHead(depth), torch.eye(7).double()
        for one in net.seen(LOOKED_AT):
            rolled = (one["a"] + torch.eye(7)) / 2 @ rolled
        for heads in ("mean", "max", "min"):  # of one head all are the same
            close(maps_of(net, LOOKED_AT, AttentionRollout(heads), [0, 2], None), patches(rolled[:, 0]), rtol=1e-11)


def test_relevance_of_one_head() -> None:
    """y = w (x_0 + sum_j A_0j v_j) + b, so dA_0j = w v_j, and a patch has relu(A_0j w v_j)."""
    net, classes = OneHead(1), [0, 2]
    (one,), w = net.seen(LOOKED_AT), net.head.weight[classes].detach()
    share = one["a"][:, 0] * torch.einsum("bd,bnd->bn", w, one["v"])
    assert float(share.min()) < 0 < float(share.max())
    close(maps_of(net, LOOKED_AT, AttentionRelevance(), classes, None), patches(share.relu()), rtol=1e-11)


def test_legrad_of_one_head() -> None:
    """The score of the mean token is w mean_i(x_i + sum_j A_ij v_j) + b: its slope is w v_j / N in each row i."""
    net, classes = OneHead(2), [0, 2]
    w = net.head.weight[classes].detach()
    slopes = [torch.einsum("bd,bnd->bn", w, one["v"]).relu() / 7 for one in net.seen(LOOKED_AT)]
    close(maps_of(net, LOOKED_AT, LeGrad(last=1), classes, None), patches(slopes[1]), rtol=1e-11)
    for method in (LeGrad(), LeGrad(last=None)):
        close(maps_of(net, LOOKED_AT, method, classes, None), patches(slopes[0] + slopes[1]), rtol=1e-11)


def test_gradeclip_of_one_head() -> None:
    """dy/do is w: each patch has w v_i, times how alike its key is to the class token's query, on [0, 1]."""
    net, classes = OneHead(1), [0, 2]
    (one,), w = net.seen(LOOKED_AT), net.head.weight[classes].detach()
    alike_keys = torch.einsum("bd,bnd->bn", one["q"][:, 0], one["k"]) / one["k"].norm(dim=2)  # |q| is one for all
    loosened = normalized(alike_keys[:, 1:])
    expected = loosened * torch.einsum("bd,bnd->bn", w, one["v"][:, 1:])
    close(maps_of(net, LOOKED_AT, GradECLIP(), classes, None), expected.reshape(2, 2, 3), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("score_of", ["logit", "probability"])
def test_vit_reciprocam_of_one_head(score_of: Any) -> None:
    """A masked token has key and value 0 but keeps its place in the softmax: exp(0) = 1 below the line."""
    net, classes = OneHead(2, normed=True), [0, 2]
    one, head = net.seen(LOOKED_AT)[-1], net.head
    expected = torch.zeros(2, 6).double()
    for image, c in enumerate(classes):
        q, k, v = (one[name][image] for name in "qkv")
        raw = torch.exp(k @ q[0] / 2)
        for cell in range(6):
            kept = [0, cell + 1]
            o = (raw[kept, None] * v[kept]).sum(0) / (raw[kept].sum() + 5)
            z = (head.weight @ (one["x"][image, 0] + o) + head.bias).detach()
            expected[image, cell] = (z if score_of == "logit" else z.softmax(0))[c]
    found = maps_of(net, LOOKED_AT, ViTReciproCAM(-1, "point", score_of), classes, None)
    close(found, expected.reshape(2, 2, 3), rtol=1e-10)


@pytest.mark.parametrize("name", ["attentionrollout", "attentionrelevance", "legrad", "gradeclip", "vitreciprocam"])
def test_attention_in_the_blocks_own_forward(name: str) -> None:
    """It is the same attention in the same block, whether a module of its own computes it or not."""
    method = SETTINGS.get(name, name)
    expected = maps_of(OneHead(2, normed=True), LOOKED_AT, method, [0, 2], None)
    close(maps_of(OneHead(2, normed=True, kind=InOne), LOOKED_AT, method, [0, 2], None), expected)
