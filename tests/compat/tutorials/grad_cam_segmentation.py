"""pytorch-grad-cam's tutorial "Class activation maps for semantic segmentation", with a small network."""

import numpy as np
import torch
import torchvision
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image


class SegmentationModelOutputWrapper(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)["out"]


class SemanticSegmentationTarget:
    def __init__(self, category, mask):
        self.category = category
        self.mask = torch.from_numpy(mask)

    def __call__(self, model_output):
        return (model_output[self.category, :, :] * self.mask).sum()


torch.manual_seed(0)
model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
model = SegmentationModelOutputWrapper(model.eval())
input_tensor = torch.randn(1, 3, 96, 96)
output = model(input_tensor)
car_mask = torch.softmax(output, dim=1).argmax(axis=1)[0].detach().cpu().numpy()
car_mask_float = np.float32(car_mask == np.bincount(car_mask.ravel()).argmax())
category = int(np.bincount(car_mask.ravel()).argmax())

target_layers = [model.model.backbone["13"]]
targets = [SemanticSegmentationTarget(category, car_mask_float)]
with GradCAM(model=model, target_layers=target_layers) as cam:
    grayscale_cam = cam(input_tensor=input_tensor, targets=targets)[0, :]
    image = np.full((96, 96, 3), 0.5, np.float32)
    results = {"GradCAM": grayscale_cam, "visualization": show_cam_on_image(image, grayscale_cam, use_rgb=True)}
