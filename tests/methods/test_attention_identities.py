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
    FusedBlock,
    OneHeadTransformer,
)
from support.identity_maps import maps_of, normalize_maps
from support.identity_networks import (
    assert_close,
    random_normal,
)

ATTENTION_INPUTS = random_normal(2, 2, 6, 9, seed=8)


def patches(row: Tensor) -> Tensor:
    """Return one value per token (B, 7) as a map (B, 2, 3) of the patches."""
    return row[:, 1:].reshape(-1, 2, 3)


def test_rollout_of_one_head_is_the_mean_of_attention_and_identity() -> None:
    """Rows of A sum to 1, so A + I with normalized rows is (A + I) / 2; each later layer multiplies from the left."""
    for depth in (1, 2):
        net, rolled = OneHeadTransformer(depth), torch.eye(7).double()
        for one in net.block_tensors(ATTENTION_INPUTS):
            rolled = (one["a"] + torch.eye(7)) / 2 @ rolled
        for heads in ("mean", "max", "min"):  # equal for a single head
            assert_close(
                maps_of(net, ATTENTION_INPUTS, AttentionRollout(heads), [0, 2], None), patches(rolled[:, 0]), rtol=1e-11
            )


def test_relevance_of_one_head() -> None:
    """y = w (x_0 + sum_j A_0j v_j) + b, so dA_0j = w v_j, and a patch has relu(A_0j w v_j)."""
    net, classes = OneHeadTransformer(1), [0, 2]
    (one,), w = net.block_tensors(ATTENTION_INPUTS), net.head.weight[classes].detach()
    share = one["a"][:, 0] * torch.einsum("bd,bnd->bn", w, one["v"])
    assert float(share.min()) < 0 < float(share.max())
    assert_close(maps_of(net, ATTENTION_INPUTS, AttentionRelevance(), classes, None), patches(share.relu()), rtol=1e-11)


def test_legrad_of_one_head() -> None:
    """The score of the mean token is w mean_i(x_i + sum_j A_ij v_j) + b; its gradient is w v_j / N in each row i."""
    net, classes = OneHeadTransformer(2), [0, 2]
    w = net.head.weight[classes].detach()
    slopes = [torch.einsum("bd,bnd->bn", w, one["v"]).relu() / 7 for one in net.block_tensors(ATTENTION_INPUTS)]
    assert_close(maps_of(net, ATTENTION_INPUTS, LeGrad(last=1), classes, None), patches(slopes[1]), rtol=1e-11)
    for method in (LeGrad(), LeGrad(last=None)):
        assert_close(maps_of(net, ATTENTION_INPUTS, method, classes, None), patches(slopes[0] + slopes[1]), rtol=1e-11)


def test_gradeclip_of_one_head() -> None:
    """dy/do is w: each patch has w v_i times the similarity of its key to the class token's query, scaled to [0, 1]."""
    net, classes = OneHeadTransformer(1), [0, 2]
    (one,), w = net.block_tensors(ATTENTION_INPUTS), net.head.weight[classes].detach()
    key_similarity = torch.einsum("bd,bnd->bn", one["q"][:, 0], one["k"]) / one["k"].norm(
        dim=2
    )  # |q| is the same for all
    loosened = normalize_maps(key_similarity[:, 1:])
    expected = loosened * torch.einsum("bd,bnd->bn", w, one["v"][:, 1:])
    assert_close(
        maps_of(net, ATTENTION_INPUTS, GradECLIP(), classes, None), expected.reshape(2, 2, 3), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("score_name", ["logit", "probability"])
def test_vit_reciprocam_of_one_head(score_name: Any) -> None:
    """A masked token has key and value 0 but stays in the softmax: it adds exp(0) = 1 to the denominator."""
    net, classes = OneHeadTransformer(2, normed=True), [0, 2]
    one, head = net.block_tensors(ATTENTION_INPUTS)[-1], net.head
    expected = torch.zeros(2, 6).double()
    for image, c in enumerate(classes):
        q, k, v = (one[name][image] for name in "qkv")
        raw = torch.exp(k @ q[0] / 2)
        for cell in range(6):
            kept = [0, cell + 1]
            o = (raw[kept, None] * v[kept]).sum(0) / (raw[kept].sum() + 5)
            z = (head.weight @ (one["x"][image, 0] + o) + head.bias).detach()
            expected[image, cell] = (z if score_name == "logit" else z.softmax(0))[c]
    actual = maps_of(net, ATTENTION_INPUTS, ViTReciproCAM(-1, "point", score_name), classes, None)
    assert_close(actual, expected.reshape(2, 2, 3), rtol=1e-10)


@pytest.mark.parametrize("name", ["attentionrollout", "attentionrelevance", "legrad", "gradeclip", "vitreciprocam"])
def test_attention_in_the_forward_of_the_block(name: str) -> None:
    """Attention computed in the forward of the block equals attention computed by a separate module."""
    method = SETTINGS.get(name, name)
    expected = maps_of(OneHeadTransformer(2, normed=True), ATTENTION_INPUTS, method, [0, 2], None)
    assert_close(
        maps_of(OneHeadTransformer(2, normed=True, kind=FusedBlock), ATTENTION_INPUTS, method, [0, 2], None), expected
    )
