"""A method, a model with one output, a volume and a Hugging Face wrapper, as in pytorch-grad-cam's docs."""

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget, ClassifierOutputTarget

torch.manual_seed(0)
results = {}


class MaxGradCAM(BaseCAM):
    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform)

    def get_cam_weights(self, input_tensor, target_layers, targets, activations, grads):
        return np.max(grads, axis=(2, 3))


def network(dims, outputs):
    conv, pool = (
        (torch.nn.Conv2d, torch.nn.AdaptiveAvgPool2d) if dims == 2 else (torch.nn.Conv3d, torch.nn.AdaptiveAvgPool3d)
    )
    layers = [conv(3, 6, 3, stride=2), torch.nn.ReLU(), conv(6, 8, 3), torch.nn.ReLU(), conv(8, 8, 3)]
    return torch.nn.Sequential(*layers, pool(2), torch.nn.Flatten(), torch.nn.Linear(8 * 2**dims, outputs)).eval()


model = network(2, 4)
inputs = torch.randn(2, 3, 32, 32)
targets = [ClassifierOutputTarget(1), ClassifierOutputTarget(2)]
results["own method"] = MaxGradCAM(model, [model[2]])(input_tensor=inputs, targets=targets)

binary = network(2, 1)
for category in (0, 1):
    target = [BinaryClassifierOutputTarget(category)]
    results[f"binary {category}"] = GradCAM(binary, [binary[2]])(input_tensor=inputs[:1], targets=target)

volume = network(3, 4)
cam = GradCAM(volume, [volume[2]])
results["volume"] = cam(input_tensor=torch.randn(1, 3, 18, 20, 22), targets=[ClassifierOutputTarget(3)])


class HuggingfaceToTensorModelWrapper(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return {"logits": self.model(x)}["logits"]


wrapped = HuggingfaceToTensorModelWrapper(model)
results["wrapper"] = GradCAM(wrapped, [wrapped.model[4]])(input_tensor=inputs, targets=targets)
