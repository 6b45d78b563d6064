# %% [markdown]
# # Your own network, while it trains
#
# The task: is the bright square on the left or on the right?

# %%
import torch
from torch import nn

import seewhy
from seewhy.integrations import TrainingMaps

torch.manual_seed(0)


def batch(size):
    sides = torch.randint(0, 2, (size,))
    images = torch.rand(size, 1, 32, 32) * 0.5
    for image, side in zip(images, sides, strict=True):
        row, column = torch.randint(2, 22, (2,)).tolist()
        column = column // 3 + 16 * int(side)
        image[0, row : row + 8, column : column + 8] += 0.5
    return images, sides


net = nn.Sequential(
    nn.Conv2d(1, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16 * 16, 2),
)  # fmt: skip
optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
images, classes = batch(2)
log = TrainingMaps(
    images, classes=classes.tolist(), every=20, methods="hirescam", layers="4", sinks="maps", labels=["left", "right"]
)

# %%
for step in range(61):
    log.step(step, net)  # the same two images every 20 steps; training is bit for bit the same without it
    inputs, targets = batch(32)
    loss = nn.functional.cross_entropy(net(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
log.close()
round(loss.item(), 3)

# %% [markdown]
# The folder `maps` contains an animation of each image. And this is the trained network, explained directly. HiResCAM fits a network
# whose positions have separate weights, as before a `Flatten`: Grad-CAM would average them.

# %%
e = seewhy.explain(
    net, images, methods="hirescam", layers="4", targets=seewhy.ClassScore(classes), labels=["left", "right"]
)
e.figure(rows="images", width=3, dpi=90)
