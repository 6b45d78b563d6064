"""captum's tutorial "Semantic segmentation model interpretation": a function that sums up the output, and Grad-CAM."""

import matplotlib
import numpy as np
import torch
import torchvision
from captum.attr import LayerAttribution, LayerGradCam
from captum.attr import visualization as viz

matplotlib.use("Agg")
torch.manual_seed(0)
fcn = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=6).eval()
normalized_inp = torch.randn(1, 3, 64, 64)
out = fcn(normalized_inp)["out"]
out_max = torch.argmax(out, dim=1, keepdim=True)


def agg_segmentation_wrapper(inp):
    model_out = fcn(inp)["out"]
    selected_inds = torch.zeros_like(model_out[0:1]).scatter_(1, out_max, 1)
    return (model_out * selected_inds).sum(dim=(2, 3))


lgc = LayerGradCam(agg_segmentation_wrapper, fcn.backbone.layer4[2].conv3)
gc_attr = lgc.attribute(normalized_inp, target=int(out_max.flatten().mode().values))
upsampled_gc_attr = LayerAttribution.interpolate(gc_attr, normalized_inp.shape[2:])
results = {"LayerGradCam": gc_attr.detach().numpy(), "interpolated": upsampled_gc_attr.detach().numpy()}

image = np.full((64, 64, 3), 0.5)
attribution = upsampled_gc_attr[0].cpu().permute(1, 2, 0).detach().numpy()
figure, axes = viz.visualize_image_attr(attribution, image, "blended_heat_map", "all", use_pyplot=False)
results["drawn values"] = np.asarray(axes.images[1].get_array())
