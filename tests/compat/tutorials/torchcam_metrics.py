"""The metrics of torchcam's docs, on the embedded network."""

from functools import partial

import torch
from PIL import Image
from torchcam.methods import GradCAM
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric
from torchvision.transforms.functional import normalize, resize, to_tensor

import seewhy

model = seewhy.load_model(device="cpu").module.eval()
img = resize(to_tensor(Image.open(seewhy.sample("cat_espresso"))), (96, 96), antialias=True)
batch = torch.stack([img, img.flip(-1)])
input_tensor = normalize(batch, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
results = {}
with GradCAM(model, "bn2") as cam_extractor:
    metric = ClassificationMetric(cam_extractor, partial(torch.softmax, dim=-1))
    metric.update(input_tensor, 281)
    results["classification"] = list(metric.summary().values())
    metric = DeletionInsertionMetric(cam_extractor, steps=5)
    metric.update(input_tensor, [281, 967])
    results["deletion, insertion"] = list(metric.summary().values())
