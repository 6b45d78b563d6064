"""pytorch-grad-cam's tutorial "CAM metrics and tuning", on the embedded network."""

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.metrics.cam_mult_image import CamMultImageConfidenceChange, DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric
from pytorch_grad_cam.metrics.road import ROADCombined, ROADLeastRelevantFirst, ROADMostRelevantFirst
from pytorch_grad_cam.utils.image import preprocess_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget

import seewhy

torch.manual_seed(0)
rgb_img = np.float32(Image.open(seewhy.sample("cat_espresso")).resize((96, 96))) / 255
input_tensor = preprocess_image(rgb_img)
model = seewhy.load_model(device="cpu").module.eval()
targets = [ClassifierOutputTarget(281)]
with GradCAM(model=model, target_layers=[model.blocks[4]]) as cam:
    grayscale_cams = cam(input_tensor=input_tensor, targets=targets)

softmax_targets = [ClassifierOutputSoftmaxTarget(281)]
results = {"GradCAM": grayscale_cams}
scores, visualizations = CamMultImageConfidenceChange()(
    input_tensor, grayscale_cams, softmax_targets, model, return_visualization=True
)
results["confidence change"] = scores
results["confidence change image"] = visualizations[0].numpy()
results["drop"] = DropInConfidence()(input_tensor, grayscale_cams, softmax_targets, model)
results["increase"] = IncreaseInConfidence()(input_tensor, grayscale_cams, softmax_targets, model)
shifted = PerturbationConfidenceMetric(lambda image, mask: image * (1 - mask))
results["own perturbation"] = shifted(input_tensor, grayscale_cams, targets, model)
results["noisy: ROAD most"] = ROADMostRelevantFirst(percentile=75)(input_tensor, grayscale_cams, targets, model)
results["noisy: ROAD least"] = ROADLeastRelevantFirst(percentile=75)(input_tensor, grayscale_cams, targets, model)
results["noisy: ROAD combined"] = ROADCombined(percentiles=[40, 80])(input_tensor, grayscale_cams, targets, model)
