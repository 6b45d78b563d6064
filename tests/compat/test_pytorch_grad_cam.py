"""`seewhy.compat.pytorch_grad_cam`: maps, targets, bad input, and what it does not do to the model."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import seewhy
from seewhy.compat import differences
from seewhy.compat.pytorch_grad_cam import (
    SESS,
    AblationCAM,
    AblationLayerVit,
    BaseCAM,
    FullGrad,
    GradCAM,
    GuidedBackpropReLUModel,
    RandomCAM,
    RefineCAM,
    ShapleyCAM,
)
from seewhy.compat.pytorch_grad_cam.metrics.cam_mult_image import CamMultImageConfidenceChange
from seewhy.compat.pytorch_grad_cam.metrics.perturbation_confidence import RemoveMostRelevantFirst
from seewhy.compat.pytorch_grad_cam.utils.find_layers import find_layer_types_recursive
from seewhy.compat.pytorch_grad_cam.utils.image import scale_cam_image, show_cam_on_image
from seewhy.compat.pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputReST,
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    FasterRCNNBoxScoreTarget,
    SemanticSegmentationTarget,
)
from seewhy.compat.pytorch_grad_cam.utils.reshape_transforms import fasterrcnn_reshape_transform, vit_reshape_transform
from seewhy.errors import TargetError, UnknownName, UsageError

INPUTS = torch.linspace(-2, 2, 3 * 3 * 12 * 12).sin().reshape(3, 3, 12, 12)
TARGETS = [ClassifierOutputTarget(1), ClassifierOutputTarget(2), ClassifierOutputTarget(0)]


@pytest.fixture(autouse=True)
def nothing_logged() -> Iterator[None]:
    """Log each difference again in each test."""
    differences._logged.clear()
    yield
    differences._logged.clear()


def network(*, inplace: bool = False) -> nn.Sequential:
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)]
    layers = [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(inplace)]
    return nn.Sequential(*layers, *head)


def grad_cam_by_hand(net: nn.Sequential, inputs: Tensor, classes: list[int], layer: int = 3) -> Tensor:
    """Return what pytorch-grad-cam returns for one layer, in float64: rectified, min-max, resized, min-max again."""
    net, inputs = net.double().eval(), inputs.double()
    activations = net[: layer + 1](inputs).detach().requires_grad_()
    scores = net[layer + 1 :](activations)[range(len(classes)), classes]
    (gradients,) = torch.autograd.grad(scores.sum(), activations)
    maps = F.relu((gradients.mean((2, 3), keepdim=True) * activations).sum(1)).detach()
    net.float()
    return minmax(F.interpolate(minmax(maps)[:, None], inputs.shape[2:], mode="bilinear")[:, 0])


def minmax(maps: Tensor) -> Tensor:
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (maps.amax((1, 2), keepdim=True) + 1e-7)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_map_is_the_formula_also_after_an_operation_in_place(inplace: bool, caplog: pytest.LogCaptureFixture) -> None:
    net = network(inplace=inplace)
    expected = grad_cam_by_hand(network_without_inplace(net), INPUTS, [1, 2, 0])
    maps = GradCAM(model=net, target_layers=[net[3]])(input_tensor=INPUTS, targets=TARGETS)
    assert maps.dtype == np.float32 and maps.shape == (3, 12, 12)
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    GradCAM(model=net, target_layers=[net[3]])(input_tensor=INPUTS, targets=TARGETS)
    logged = [record.getMessage() for record in caplog.records if "in-place" in record.getMessage()]
    assert len(logged) == inplace, "logged once, and only if the layer is overwritten"


def network_without_inplace(net: nn.Sequential) -> nn.Sequential:
    copy = network()
    copy.load_state_dict(net.state_dict())
    return copy


def test_the_model_stays_as_it_was() -> None:
    net = network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.inference_mode(), GradCAM(model=net.requires_grad_(False), target_layers=[net[3]]) as cam:
        maps = cam(input_tensor=INPUTS, targets=TARGETS)
    assert maps.max() > 0.99
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters()) and not net[3]._forward_hooks


def test_errors_of_the_block_are_not_suppressed() -> None:
    net = network()
    with pytest.raises(IndexError), GradCAM(model=net, target_layers=[net[3]]):
        raise IndexError


def test_the_predicted_classes_are_explained_by_default() -> None:
    net = network().eval()
    predicted = [ClassifierOutputTarget(int(index)) for index in net(INPUTS).argmax(1)]
    cam = GradCAM(model=net, target_layers=[net[3]])
    np.testing.assert_array_equal(cam(INPUTS), cam(INPUTS, predicted))
    torch.testing.assert_close(cam.outputs, net(INPUTS))


def test_outputs_of_a_model_without_class_scores() -> None:
    class Fields(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()[:4]

        def forward(self, inputs: Tensor) -> Tensor:
            result: Tensor = self.net(inputs)
            return result

    net = Fields().train()
    cam = GradCAM(model=net, target_layers=[net.net[0]])
    assert cam.outputs is None
    cam(INPUTS, [lambda row: row[0].sum()] * 3)
    assert cam.outputs.shape == (3, 6, 8, 8) and net.training


def test_any_function_of_the_row_is_a_target() -> None:
    net = network().eval()
    cam = GradCAM(model=net, target_layers=[net[3]])
    functions = [lambda row, index=index: row[index] for index in (1, 2, 0)]
    np.testing.assert_allclose(cam(INPUTS, functions), cam(INPUTS, TARGETS), atol=1e-6)
    softmax = cam(INPUTS, [ClassifierOutputSoftmaxTarget(1)] * 3)
    expected = seewhy.explain(net, INPUTS, layers="3", targets=seewhy.targets.ClassProbability(1)).map().numpy()
    np.testing.assert_allclose(softmax, scale_cam_image(scale_cam_image(np.maximum(expected, 0), (12, 12))), atol=1e-6)


def test_one_target_is_used_for_the_entire_batch(caplog: pytest.LogCaptureFixture) -> None:
    net = network()
    cam = GradCAM(model=net, target_layers=[net[3]])
    np.testing.assert_array_equal(cam(INPUTS, TARGETS[:1]), cam(INPUTS, TARGETS[:1] * 3))
    assert "empty maps for all but the first image" in caplog.text


def test_several_layers_are_averaged() -> None:
    net = network()
    one, other = (GradCAM(net, [net[index]])(INPUTS, TARGETS) for index in (0, 3))
    both = GradCAM(net, [net[0], net[3]])(INPUTS, TARGETS)
    np.testing.assert_allclose(both, scale_cam_image((one + other) / 2), atol=1e-4)


def test_a_module_that_runs_twice_means_its_first_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.rest = nn.Conv2d(3, 3, 3), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, inputs: Tensor) -> Tensor:
            result: Tensor = self.rest(self.conv(self.conv(inputs).tanh()))
            return result

    net = Twice()
    maps = seewhy.explain(net, INPUTS, layers="conv#1", targets=1).map().numpy()
    expected = scale_cam_image(scale_cam_image(np.maximum(maps, 0), (12, 12)))
    np.testing.assert_allclose(GradCAM(net, [net.conv])(INPUTS, [ClassifierOutputTarget(1)]), expected, atol=1e-6)


def test_refinecam_of_one_layer_is_its_base() -> None:
    net = network()
    refined = RefineCAM(net, [net[3]], base_method=GradCAM)(INPUTS, TARGETS)
    np.testing.assert_array_equal(refined, GradCAM(net, [net[3]])(INPUTS, TARGETS))


def test_shapleycam_adds_the_log_probability_itself() -> None:
    net = network()
    cam = ShapleyCAM(net, [net[3]])
    rest = cam(INPUTS, [ClassifierOutputReST(1)] * 3)
    np.testing.assert_array_equal(rest, cam(INPUTS, [ClassifierOutputTarget(1)] * 3))
    maps = seewhy.explain(net, INPUTS, methods="shapleycam", layers="3", targets=1).map().numpy()
    np.testing.assert_allclose(rest, scale_cam_image(scale_cam_image(np.maximum(maps, 0), (12, 12))), atol=1e-6)


@pytest.mark.parametrize("cam_class", [FullGrad, RandomCAM, AblationCAM, SESS])
def test_methods_that_differ_on_purpose_log_why_once(
    cam_class: type[BaseCAM], caplog: pytest.LogCaptureFixture
) -> None:
    net = network()
    cam = cam_class(net, [net[3]], num_scales=2) if cam_class is SESS else cam_class(net, [net[3]])  # type: ignore[call-arg]
    for _ in range(2):
        assert cam(INPUTS[:1], TARGETS[:1]).shape == (1, 12, 12)
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count(cam_class.difference) == 1


def test_ablation_layers_and_settings_are_accepted(caplog: pytest.LogCaptureFixture) -> None:
    net = network()
    AblationCAM(net, [net[3]], ablation_layer=AblationLayerVit(), batch_size=2, ratio_channels_to_ablate=0.5)
    assert "ablates all channels" in caplog.text


def test_a_class_without_weights_is_explained_in_one_line() -> None:
    net = network()
    with pytest.raises(UsageError, match="neither get_cam_weights nor get_cam_image"):
        BaseCAM(net, [net[3]])(INPUTS, TARGETS)


class BadShape(BaseCAM):
    def get_cam_image(self, *args: object, **kwargs: object) -> np.ndarray:
        return np.zeros((3, 2, 2))


def test_bad_input_is_one_clear_line() -> None:
    net = network()
    cam = GradCAM(model=net, target_layers=[net[3]])
    with pytest.raises(UsageError, match=r"is not a module of the model; pass one of its modules, such as model\.7"):
        GradCAM(model=net, target_layers=[nn.Conv2d(3, 4, 3)])
    with pytest.raises(UsageError, match="target_layers is of type Conv2d; pass a list"):
        GradCAM(model=net, target_layers=net[3])
    with pytest.raises(UsageError, match="target_layers is empty"):
        GradCAM(model=net, target_layers=[])(INPUTS, TARGETS)
    with pytest.raises(UnknownName, match="no layer 'conv9'"):
        GradCAM(model=net, target_layers=["conv9"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"a layer of type int; pass a module of the model"):
        GradCAM(model=net, target_layers=[3])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="targets has 2 entries for 3 images"):
        cam(INPUTS, TARGETS[:2])
    with pytest.raises(UsageError, match=r"targets\[0\] is 281, of type int; use ClassifierOutputTarget\(281\)"):
        cam(INPUTS, [281])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="targets is one ClassifierOutputTarget; pass a list"):
        cam(INPUTS, TARGETS[0])  # type: ignore[arg-type]
    with pytest.raises(TargetError, match=r"target 'lambda': returned a value of shape \(4,\)"):
        cam(INPUTS, [lambda row: row] * 3)
    with pytest.raises(UsageError, match="input_tensor is of type ndarray"):
        cam(INPUTS.numpy(), TARGETS)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="target 9: the model has 4 classes"):
        cam(INPUTS, [ClassifierOutputTarget(9)] * 3)
    with pytest.raises(UsageError, match=r"get_cam_image returned shape \(3, 2, 2\); it must return \(3, 8, 8\)"):
        BadShape(net, [net[3]])(INPUTS, TARGETS)
    with pytest.raises(UsageError, match=r"base_method=FullGrad: RefineCAM needs a method with one map per layer"):
        RefineCAM(net, [net[0], net[3]], base_method=FullGrad)(INPUTS, TARGETS)
    with pytest.raises(UsageError, match="percentile='auto' is not available"):
        RemoveMostRelevantFirst("auto", lambda image, _: image)
    with pytest.raises(UsageError, match=r"cams has shape \(3, 8, 8\) for images \(3, 3, 12, 12\)"):
        CamMultImageConfidenceChange()(INPUTS, np.zeros((3, 8, 8)), TARGETS, net)
    with pytest.raises(UsageError, match="targets=None: metrics need one target per image"):
        CamMultImageConfidenceChange()(INPUTS, np.zeros((3, 12, 12)), None, net)


def test_names_that_are_not_covered_name_what_to_do() -> None:
    with pytest.raises(ImportError, match="did you mean ClassifierOutputTarget"):
        from seewhy.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputTargets  # noqa: F401
    with pytest.raises(ImportError, match="methods='deepfeaturefactorization'"):
        from seewhy.compat.pytorch_grad_cam import DeepFeatureFactorization  # noqa: F401


def test_reshape_transforms_are_compared_with_the_inferred_grid() -> None:
    import timm

    net = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=1, num_classes=3)
    inputs = torch.rand(1, 3, 48, 48)
    plain = GradCAM(net, [net.blocks[-1].norm1])(inputs)

    def right(tokens: Tensor) -> Tensor:
        return vit_reshape_transform(tokens, 3, 3)

    np.testing.assert_array_equal(GradCAM(net, [net.blocks[-1].norm1], right)(inputs), plain)
    with pytest.raises(UsageError, match="reshape_transform failed on an output of shape"):
        GradCAM(net, [net.blocks[-1].norm1], vit_reshape_transform)(inputs)
    with pytest.raises(UsageError, match="puts tokens at other places than where the network has them"):
        GradCAM(net, [net.blocks[-1].norm1], lambda tokens: right(tokens).mT)(inputs)
    with pytest.raises(UsageError, match=r"returns \(1, 192, 9\) instead of \(1, 192, 3, 3\)"):
        GradCAM(net, [net.blocks[-1].norm1], lambda tokens: right(tokens).flatten(2))(inputs)


def test_guided_backpropagation_is_that_of_the_method() -> None:
    net = network()
    gradient = GuidedBackpropReLUModel(net)(INPUTS, target_category=1)
    assert gradient.shape == (12, 12, 3)
    base = seewhy.explain(net, INPUTS[:1], methods="gradcam", layers="3", targets=1).map()
    where = F.interpolate(base.clamp(min=0)[None], (12, 12), mode="bilinear")[0, 0]
    expected = seewhy.explain(net, INPUTS[:1], methods="guidedgradcam", layers="3", targets=1).map()[0]
    torch.testing.assert_close(torch.from_numpy(gradient).sum(2) * where, expected)
    with pytest.raises(UsageError, match="input_img: pass a tensor"):
        GuidedBackpropReLUModel(net)(INPUTS[0])


def test_overlays() -> None:
    image = np.full((4, 4, 3), 0.25, np.float32)
    drawn = show_cam_on_image(image, np.eye(4), use_rgb=True, image_weight=0)
    assert drawn.dtype == np.uint8 and drawn[0, 0].tolist() == [255, 0, 0] and drawn[0, 1].tolist() == [0, 0, 255]
    assert show_cam_on_image(image, np.eye(4), image_weight=0)[0, 0].tolist() == [0, 0, 255]
    assert show_cam_on_image(image, np.zeros((4, 4)), colormap=16).shape == (4, 4, 3)
    with pytest.raises(UsageError, match="colormap=11 is not available; use one of 2"):
        show_cam_on_image(image, np.eye(4), colormap=11)
    with pytest.raises(UsageError, match="img has values up to 255"):
        show_cam_on_image(image * 1020, np.eye(4))
    with pytest.raises(UsageError, match=r"img has shape \(4, 4, 3\) and mask \(5, 5\)"):
        show_cam_on_image(image, np.eye(5))
    with pytest.raises(UsageError, match="image_weight=2"):
        show_cam_on_image(image, np.eye(4), image_weight=2)


def test_targets_of_dense_and_detection_outputs() -> None:
    output = torch.arange(12.0).reshape(3, 2, 2)
    mask = np.array([[1, 0], [0, 0.5]])
    assert SemanticSegmentationTarget(2, mask)(output) == 8 + 0.5 * 11
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    found = {"boxes": boxes, "labels": torch.tensor([3, 4]), "scores": torch.tensor([0.75, 0.5])}
    assert FasterRCNNBoxScoreTarget([3], [boxes[0].numpy()])(found) == 1.75
    assert FasterRCNNBoxScoreTarget([4], [boxes[0].numpy()])(found) == 0
    empty = {"boxes": boxes[:0], "labels": torch.tensor([]), "scores": torch.tensor([])}
    assert FasterRCNNBoxScoreTarget([3], boxes[:1])(empty) == 0


def test_the_box_of_a_faster_rcnn() -> None:
    """As in the tutorial for detection, but without its reshape transform, which is refused."""
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    net = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=4, box_score_thresh=0.0, min_size=96, max_size=96
    ).eval()
    inputs = torch.rand(1, 3, 96, 96)
    found = net(inputs)[0]
    targets = [FasterRCNNBoxScoreTarget(found["labels"][:1], found["boxes"][:1].detach())]
    assert GradCAM(net, [net.backbone.body["13"]])(inputs, targets).max() > 0.99
    with pytest.raises(UsageError, match=r"reshape_transform failed .* leave it out"):
        GradCAM(net, [net.backbone], fasterrcnn_reshape_transform)(inputs, targets)
    levels = {"0": torch.ones(1, 2, 4, 4), "pool": -torch.ones(1, 3, 2, 2)}
    assert torch.equal(fasterrcnn_reshape_transform(levels), torch.ones(1, 5, 2, 2))


def test_maps_that_are_blank_or_not_finite_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    net = network()
    cam = GradCAM(net, [net[3]])
    assert cam(INPUTS[:1], [lambda row: row.sum() * 0]).max() == 0
    assert np.isnan(cam(INPUTS[:1] * torch.nan, TARGETS[:1])).all()
    assert ["no positive evidence" in caplog.records[0].message, "not finite" in caplog.records[1].message] == [
        True,
        True,
    ]


def test_layers_are_found_by_class() -> None:
    net = network()
    assert find_layer_types_recursive(net, [nn.Conv2d]) == [net[0], net[3]]


def test_differences_are_logged_at_warning(caplog: pytest.LogCaptureFixture) -> None:
    differences.log_once("Something differs.")
    differences.log_once("Something differs.")
    assert [(record.name, record.levelno) for record in caplog.records] == [("seewhy.compat", logging.WARNING)]
