"""pytorch-grad-cam's example for vision transformers: a layer of tokens with a reshape transform."""

import timm
import torch
from pytorch_grad_cam import GradCAM, HiResCAM, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

torch.manual_seed(0)
model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=7).eval()
input_tensor = torch.randn(2, 3, 64, 64)
target_layers = [model.blocks[-1].norm1]
targets = [ClassifierOutputTarget(3), ClassifierOutputTarget(5)]


def reshape_transform(tensor, height=4, width=4):
    result = tensor[:, 1:, :].reshape(tensor.size(0), height, width, tensor.size(2))
    return result.transpose(2, 3).transpose(1, 2)


results = {}
for method in (GradCAM, HiResCAM):
    cam = method(model=model, target_layers=target_layers, reshape_transform=reshape_transform)
    results[method.__name__] = cam(input_tensor=input_tensor, targets=targets)

cam = ScoreCAM(model=model, target_layers=target_layers, reshape_transform=reshape_transform)
cam.batch_size = 32
results["ScoreCAM"] = cam(input_tensor=input_tensor[:1], targets=targets[:1])
