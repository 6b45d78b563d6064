"""The usage of pytorch-grad-cam's README and example script, on the embedded network."""

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import (
    EigenCAM,
    GradCAM,
    GradCAMElementWise,
    GuidedBackpropReLUModel,
    HiResCAM,
    LayerCAM,
    XGradCAM,
)
from pytorch_grad_cam.utils.image import deprocess_image, preprocess_image, show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import seewhy

torch.manual_seed(0)
rgb_img = np.float32(Image.open(seewhy.sample("cat_espresso")).resize((160, 160))) / 255
input_tensor = preprocess_image(rgb_img, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])
model = seewhy.load_model(device="cpu").module.eval()
target_layers = [model.bn2]
targets = [ClassifierOutputTarget(281)]
results = {}

for method in (GradCAM, HiResCAM, GradCAMElementWise, LayerCAM, XGradCAM):
    with method(model=model, target_layers=target_layers) as cam:
        grayscale_cam = cam(input_tensor=input_tensor, targets=targets)
        results[method.__name__] = grayscale_cam[0, :]
        visualization = show_cam_on_image(rgb_img, grayscale_cam[0, :], use_rgb=True)
        results[f"{method.__name__} visualization"] = visualization
        results[f"{method.__name__} outputs"] = cam.outputs[0].detach().numpy()[:50]

cam = GradCAM(model=model, target_layers=[model.blocks[3], model.bn2])
results["mean of two layers"] = cam(input_tensor=input_tensor, targets=None)
results["test time augmentation"] = cam(input_tensor=input_tensor, targets=targets, aug_smooth=True)
two = [ClassifierOutputTarget(281), ClassifierOutputTarget(967)]
results["batch"] = cam(input_tensor=input_tensor.repeat(2, 1, 1, 1), targets=two)

network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU())
network = torch.nn.Sequential(network, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5))
gb = GuidedBackpropReLUModel(model=network, device="cpu")(input_tensor, target_category=3)
results["guided"] = deprocess_image(gb)
results["differs: EigenCAM"] = EigenCAM(model=network, target_layers=[network[0][3]])(input_tensor, targets=None)
