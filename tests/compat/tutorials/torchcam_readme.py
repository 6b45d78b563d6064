"""The usage of torchcam's README and quick tour, on the embedded network."""

import torch
from PIL import Image
from torchcam.methods import CAM, FinerCAM, GradCAM, LayerCAM, ScoreCAM, XGradCAM
from torchcam.utils import overlay_mask
from torchvision.transforms.functional import normalize, resize, to_pil_image, to_tensor

import seewhy

torch.manual_seed(0)
model = seewhy.load_model(device="cpu").module.eval()
img = resize(to_tensor(Image.open(seewhy.sample("cat_espresso"))), (160, 160), antialias=True)
input_tensor = normalize(img, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
results = {}

with LayerCAM(model) as cam_extractor:
    out = model(input_tensor.unsqueeze(0))
    activation_map = cam_extractor(out.squeeze(0).argmax().item(), out)
    results["LayerCAM default"] = activation_map[0].squeeze(0).numpy()

result = overlay_mask(to_pil_image(img), to_pil_image(activation_map[0].squeeze(0), mode="F"), alpha=0.5)
results["overlay"] = result

for method in (GradCAM, XGradCAM, CAM):
    with method(model, "bn2") as cam_extractor:
        out = model(input_tensor.unsqueeze(0))
        results[method.__name__] = cam_extractor(281, out)[0].numpy()

cam_extractor = LayerCAM(model, ["blocks.2", "blocks.4", model.bn2])
out = model(input_tensor.unsqueeze(0))
cams = cam_extractor(281, out)
results["fused"] = cam_extractor.fuse_cams(cams).numpy()
cam_extractor.remove_hooks()

batch = torch.stack([input_tensor, input_tensor.flip(-1)])
with GradCAM(model, "bn2") as cam_extractor:
    results["class per image"] = cam_extractor([281, 967], model(batch))[0].numpy()
with GradCAM(model, "bn2") as cam_extractor:
    scores = model(batch)
    results["targets"] = cam_extractor(scores=scores, targets=lambda row: row[281] - row[967])[0].numpy()
with FinerCAM(model, "bn2") as cam_extractor:
    results["FinerCAM"] = cam_extractor(281, model(batch))[0].numpy()
small = torch.nn.Sequential(
    torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
)
with ScoreCAM(small, "1", batch_size=4) as cam_extractor:
    scores = small(batch)
    results["ScoreCAM"] = cam_extractor(2)[0].numpy()
