"""pytorch-grad-cam's tutorial "Pixel attribution for embeddings": similarity of features to those of another image."""

import torch
import torchvision
from pytorch_grad_cam import GradCAM


class ResnetFeatureExtractor(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.feature_extractor = torch.nn.Sequential(*list(self.model.children())[:-1])

    def __call__(self, x):
        return self.feature_extractor(x)[:, :, 0, 0]


class SimilarityToConceptTarget:
    def __init__(self, features):
        self.features = features

    def __call__(self, model_output):
        cos = torch.nn.CosineSimilarity(dim=0)
        return cos(model_output, self.features)


class DifferenceFromConceptTarget(SimilarityToConceptTarget):
    def __call__(self, model_output):
        return 1 - super().__call__(model_output)


torch.manual_seed(0)
resnet = torchvision.models.resnet18(weights=None).eval()
model = ResnetFeatureExtractor(resnet)
concept = model(torch.randn(1, 3, 96, 96))[0].detach()
input_tensor = torch.randn(1, 3, 96, 96)
target_layers = [resnet.layer4[-1]]
results = {}
for target in (SimilarityToConceptTarget(concept), DifferenceFromConceptTarget(concept)):
    with GradCAM(model=model, target_layers=target_layers) as cam:
        results[type(target).__name__] = cam(input_tensor=input_tensor, targets=[target])[0, :]
