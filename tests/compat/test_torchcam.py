"""`seewhy.compat.torchcam`: maps, the hook on the model, targets and bad input."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import seewhy
from seewhy.compat import differences
from seewhy.compat.torchcam import methods
from seewhy.compat.torchcam.methods import CAM, SSCAM, FinerCAM, GradCAM, GradCAMpp, LayerCAM, RefineCAM
from seewhy.compat.torchcam.metrics import ClassificationMetric, DeletionInsertionMetric
from seewhy.compat.torchcam.utils import overlay_mask
from seewhy.errors import UnknownName, UsageError

INPUTS = torch.linspace(-2, 2, 2 * 3 * 12 * 12).sin().reshape(2, 3, 12, 12)


@pytest.fixture(autouse=True)
def nothing_logged() -> Iterator[None]:
    """Log each difference again in each test."""
    differences._logged.clear()
    yield
    differences._logged.clear()


def network() -> nn.Sequential:
    layers = [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()


def expected_map(net: nn.Module, classes: list[int], layer: str = "3", method: str = "gradcam") -> Tensor:
    """Return what torchcam returns where it is right: rectified, min-max scaled."""
    target = seewhy.ClassScore(torch.tensor(classes))
    maps = seewhy.explain(net, INPUTS, methods=method, layers=layer, targets=target).map().clamp(min=0)
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (maps.amax((1, 2), keepdim=True) + 1e-8)


def test_maps_of_an_overwritten_layer(caplog: pytest.LogCaptureFixture) -> None:
    net = network()
    with GradCAM(net, net[3]) as extractor:
        scores = net(INPUTS)
        (maps,) = extractor([1, 2], scores)
        (raw,) = extractor([1, 2], scores, normalized=False)
    torch.testing.assert_close(maps, expected_map(net, [1, 2]))
    target = seewhy.ClassScore(torch.tensor([1, 2]))
    torch.testing.assert_close(raw, seewhy.explain(net, INPUTS, layers="3", targets=target).map().clamp(min=0))
    assert len([record for record in caplog.records if "in-place" in record.getMessage()]) == 1


def test_one_class_for_the_batch_and_targets() -> None:
    net = network()
    with GradCAM(net, ["0", net[3]]) as extractor:
        net(INPUTS)
        maps = extractor(1)
        for targets in (lambda row: row[1], [lambda row: row[1]] * 2):
            torch.testing.assert_close(extractor(targets=targets), maps)
    assert [tuple(one.shape) for one in maps] == [(2, 10, 10), (2, 8, 8)]
    torch.testing.assert_close(maps[1], expected_map(net, [1, 1]))


def test_cam_keeps_negative_values_before_it_scales() -> None:
    net = network()
    with CAM(net, "4", fc_layer="7") as extractor:
        net(INPUTS)
        (raw,) = extractor(1, normalized=False)
    torch.testing.assert_close(raw, seewhy.explain(net, INPUTS, methods="cam", layers="4", targets=1).map())


def test_no_gradients_are_needed_and_the_model_stays_as_it_was() -> None:
    net = network().train().requires_grad_(False)
    with torch.inference_mode(), LayerCAM(net, "3") as extractor:
        net.eval()
        scores = net(INPUTS)
        net.train()
        (maps,) = extractor([1, 2], scores)
    assert maps.amax() > 0.99 and net.training and not net._forward_hooks
    assert all(parameter.grad is None for parameter in net.parameters())


def test_hooks_can_be_switched() -> None:
    net = network()
    extractor = GradCAM(net, "3", enable_hooks=False)
    net(INPUTS)
    with pytest.raises(UsageError, match="the model was not run since the extractor was created"):
        extractor(1)
    extractor.enable_hooks()
    net(INPUTS)
    (maps,) = extractor(1)
    extractor.disable_hooks()
    net(INPUTS * 2)
    torch.testing.assert_close(extractor(1)[0], maps)
    extractor.reset_hooks()
    with pytest.raises(UsageError, match="was not run"):
        extractor(1)
    extractor.remove_hooks()
    assert not net._forward_hooks


def test_a_model_with_several_arguments() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, inputs: Tensor, factor: Tensor, *, shift: float = 0.0) -> Tensor:
            result: Tensor = self.net(inputs * factor + shift)
            return result

    net = Scaled().eval()
    factor = torch.tensor([2.0, 3.0]).reshape(2, 1, 1, 1)
    plain = expected_map(net.net, [1, 2])
    with GradCAM(net, "net.3") as extractor:
        net(INPUTS / factor - 0.5 / factor, factor, shift=0.5)
        (maps,) = extractor([1, 2])
    torch.testing.assert_close(maps, plain, atol=1e-4, rtol=0)


def test_the_default_layer_is_the_last_with_a_grid(caplog: pytest.LogCaptureFixture) -> None:
    net = network()
    extractor = GradCAM(net, input_shape=(3, 12, 12))
    assert extractor.target_names == ["4"] and "thus set to '4'" in caplog.text
    with pytest.raises(UsageError, match=r"the model fails on zeros \(4, 12, 12\)"):
        GradCAM(net, input_shape=(4, 12, 12))
    with pytest.raises(UsageError, match="no module returns a grid"):
        GradCAM(nn.Sequential(nn.Flatten(), nn.Linear(432, 2)), input_shape=(3, 12, 12))


def test_maps_of_layers_are_fused() -> None:
    one, other = torch.rand(1, 2, 2), torch.rand(1, 4, 4)
    large = nn.functional.interpolate(one[None], (4, 4), mode="bilinear")[0]
    torch.testing.assert_close(GradCAM.fuse_cams([one, other]), torch.maximum(large, other))
    assert GradCAM.fuse_cams([one]) is one
    scaled = torch.maximum((2 * one).tanh(), torch.zeros(()))
    expected = torch.maximum(nn.functional.interpolate(scaled[None], (4, 4), mode="bilinear")[0], (2 * other).tanh())
    torch.testing.assert_close(LayerCAM.fuse_cams([one, other]), expected)
    with pytest.raises(UsageError, match="cams: pass a list of tensors"):
        GradCAM.fuse_cams([])


def test_refinecam_multiplies_the_maps_of_its_base() -> None:
    net = network()
    with RefineCAM(net, ["0", "3"], base_method=GradCAM) as refine, GradCAM(net, ["0", "3"]) as base:
        net(INPUTS)
        (refined,) = refine(1)
        maps = base(1)
    torch.testing.assert_close(refined, RefineCAM.fuse_cams(maps))
    assert refined.shape == (2, 10, 10)


def test_finercam_subtracts_the_nearest_classes() -> None:
    net = network()
    scores = net(INPUTS)
    nearest = (scores - scores[:, 1:2]).abs().index_fill(1, torch.tensor([1]), torch.inf).argmin(1).tolist()
    with FinerCAM(net, "3", num_references=1, gamma=0.5) as extractor:
        net(INPUTS)
        (maps,) = extractor(1)
        (given,) = extractor(1, comparison_idx=[[one] for one in nearest])
        for wrong in (1, [7], [[0], [0], [0]]):
            with pytest.raises(UsageError, match="comparison_idx"):
                extractor(1, comparison_idx=wrong)
        with pytest.raises(UsageError, match="FinerCAM compares classes"):
            extractor(targets=lambda row: row[0])
        with pytest.raises(UsageError, match=r"class_idx=\[1\] for 2 images and 4 classes"):
            extractor([1])
    with GradCAM(net, "3") as extractor:
        net(INPUTS)
        (expected,) = extractor(targets=[lambda row, one=one: row[1] - 0.5 * row[one] for one in nearest])
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(given, expected)


def test_methods_that_differ_on_purpose_log_why_once(caplog: pytest.LogCaptureFixture) -> None:
    net = network()
    for name in ("GradCAMpp", "SmoothGradCAMpp", "ISCAM"):
        with getattr(methods, name)(net, "2") as extractor:
            net(INPUTS)
            assert extractor(1)[0].shape == extractor(1)[0].shape == (2, 10, 10)
    with SSCAM(net, "2", num_samples=2) as extractor:
        net(INPUTS)
        extractor(1)
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == len(set(logged)) == 4 and logged[0] == GradCAMpp.difference


def test_bad_input_is_one_clear_line() -> None:
    net = network()
    with pytest.raises(UnknownName, match="no layer 'conv'"):
        GradCAM(net, "conv")
    with pytest.raises(UsageError, match="is not a module of the model"):
        GradCAM(net, nn.ReLU())
    with pytest.raises(UsageError, match="reshape_transform is not supported"):
        GradCAM(net, "3", reshape_transform=lambda output: output)
    with pytest.raises(UsageError, match="pass a list of at least two"):
        RefineCAM(net, ["3"])
    with pytest.raises(UsageError, match=r"pass a class of seewhy\.compat\.torchcam"):
        RefineCAM(net, ["0", "3"], base_method=nn.ReLU)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="gamma=-1, num_references=3"):
        FinerCAM(net, "3", gamma=-1)
    with pytest.raises(ImportError, match="methods='legrad'"):
        from seewhy.compat.torchcam.methods import LeGrad  # noqa: F401
    with GradCAM(net, "3") as extractor:
        scores = net(INPUTS)
        with pytest.raises(UsageError, match="either class_idx or targets"):
            extractor()
        with pytest.raises(UsageError, match="class_idx=-1"):
            extractor(-1, scores)
        with pytest.raises(UsageError, match="scores is not the output of the model's last call"):
            extractor(1, scores.softmax(1))
        with pytest.raises(UsageError, match="unknown argument retain"):
            extractor(1, scores, retain=True)
        with pytest.raises(UsageError, match="targets: pass a function"):
            extractor(targets=[1, 2])
        inputs = INPUTS.clone()
        net(inputs)
        inputs.add_(1)
        with pytest.raises(UsageError, match="changed in place after the model ran"):
            extractor(1)


def test_metrics_by_hand() -> None:
    net = network()
    with GradCAM(net, "3") as extractor:
        metric = ClassificationMetric(extractor, lambda output: output.softmax(-1))
        with pytest.raises(UsageError, match="the metric has no images yet"):
            metric.summary()
        metric.update(INPUTS, [1, 2])
        net(INPUTS)
        (maps,) = extractor(targets=[lambda row: row.softmax(-1)[1], lambda row: row.softmax(-1)[2]])
        large = nn.functional.interpolate(maps[:, None], (12, 12), mode="bilinear")
        before, after = (net(images).softmax(-1)[[0, 1], [1, 2]] for images in (INPUTS, INPUTS * large))
        drop = ((before - after).relu() / before).mean().item()
        assert metric.summary()["avg_drop"] == pytest.approx(drop, abs=1e-5)
        assert metric.summary()["conf_increase"] == (before < after).float().mean().item()
        curves = DeletionInsertionMetric(extractor, steps=3, batch_size=2)
        curves.update(INPUTS[:1], 1)
        (heatmap,) = extractor(1)
        order = (
            nn.functional.interpolate(heatmap[:, None], (12, 12), mode="bilinear")
            .flatten()
            .argsort(descending=True, stable=True)
        )
        expected: list[list[float]] = [[], []]
        for count in (0, 48, 96, 144):
            mask = torch.ones(144)
            mask[order[:count]] = 0
            for values, kept in zip(expected, (mask, 1 - mask), strict=True):
                values.append(net(INPUTS[:1] * kept.reshape(12, 12))[0, 1].item())
        areas = [sum((one + two) / 2 / 3 for one, two in itertools.pairwise(curve)) for curve in expected]
        assert list(curves.summary().values()) == pytest.approx(areas, abs=1e-5)
        filled = DeletionInsertionMetric(extractor, steps=1, baseline=torch.full((3, 1, 1), 0.5))
        filled.update(INPUTS[:1], 1)
        blank = net(torch.full((1, 3, 12, 12), 0.5))[0, 1].item()
        assert filled.summary()["deletion_auc"] == pytest.approx((net(INPUTS[:1])[0, 1].item() + blank) / 2, abs=1e-5)
        with pytest.raises(UsageError, match=r"baseline has shape \(5,\)"):
            DeletionInsertionMetric(extractor, baseline=torch.ones(5)).update(INPUTS[:1], 1)
        with pytest.raises(UsageError, match="3 targets for 2 images"):
            metric.update(INPUTS, [1, 2, 3])
        with pytest.raises(UsageError, match="steps=0, batch_size=32"):
            DeletionInsertionMetric(extractor, steps=0)


def test_overlays() -> None:
    pytest.importorskip("matplotlib")
    image, mask = Image.new("RGB", (4, 6), (40, 80, 120)), Image.fromarray(np.ones((2, 2), np.float32))
    drawn = overlay_mask(image, mask, alpha=0.5)
    assert drawn.size == (4, 6) and drawn.getpixel((0, 0)) == (83, 40, 60)  # half of jet's dark red, (127, 0, 0)
    assert overlay_mask(image.convert("L"), mask, "viridis").mode == "RGB"
    for arguments, message in (
        ((np.ones(3), mask), "img and mask: pass PIL images"),
        ((image, mask, "jet", 1.0), "alpha=1.0"),
        ((image, mask, "jett"), "colormap='jett'"),
        ((image.convert("RGBA"), mask), "img has mode RGBA"),
    ):
        with pytest.raises(UsageError, match=message):
            overlay_mask(*arguments)  # type: ignore[arg-type]
