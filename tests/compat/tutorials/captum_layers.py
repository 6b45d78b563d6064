"""The layer attributions of captum's docs, and guided Grad-CAM of its ResNet tutorial."""

import torch
import torchvision
from captum.attr import GuidedBackprop, GuidedGradCam, LayerActivation, LayerGradCam, LayerGradientXActivation

torch.manual_seed(0)
model = torchvision.models.resnet18(weights=None, num_classes=10).eval()
for parameter in model.parameters():
    if parameter.dim() == 1:
        torch.nn.init.uniform_(parameter, 0.3, 1)
input = torch.randn(2, 3, 64, 64, requires_grad=True)
results = {}
for target in (3, [3, 5], torch.tensor([1, 2])):
    layer_gc = LayerGradCam(model, model.layer4)
    results[f"LayerGradCam {target}"] = layer_gc.attribute(input, target).detach().numpy()
results["relu"] = LayerGradCam(model, model.layer2).attribute(input, 3, relu_attributions=True).detach().numpy()
channels = LayerGradCam(model, model.layer1[0].bn1).attribute(input, 3, attr_dim_summation=False)
results["channels"] = channels.detach().numpy()[:, :4]
results["gradient x activation"] = (
    LayerGradientXActivation(model, model.layer3).attribute(input, 3).detach().numpy()[:, :4]
)
results["activation"] = LayerActivation(model, model.layer3).attribute(input).detach().numpy()[:, :4]
results["guided Grad-CAM"] = GuidedGradCam(model, model.layer4).attribute(input, 3).detach().numpy()
results["guided backpropagation"] = GuidedBackprop(model).attribute(input, 3).detach().numpy()
