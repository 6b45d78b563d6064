# %% [markdown]
# # The first map
#
# What did the network see, where, and how far can you trust that? The embedded network needs no download.

# %%
import seewhy

model = seewhy.load_model()  # or seewhy.load_model("timm/resnet50.a1_in1k"), or your own torch.nn.Module
e = seewhy.explain(model, seewhy.sample("cat_espresso"), fit="squash", targets="espresso")
e.top(3)

# %% [markdown]
# The overlay of the suggested layer. `e` alone, as the last line of a cell, shows the interactive page instead.

# %%
e.overlay(longest=360)

# %% [markdown]
# The numbers behind it: a signed map in the units of the method, a heatmap in [0, 1] at the size of the input, and the box around the
# strongest evidence, in pixels of the photo.

# %%
signed, heatmap = e.map(), e.heatmap()
signed.shape, round(float(heatmap.max()), 3), e.box(0.5)

# %% [markdown]
# One forward and one backward pass give the maps of *all* layers.

# %%
every = seewhy.explain(model, seewhy.sample("cat_espresso"), fit="squash", targets="espresso", layers="stages")
every.contact_sheet(side=160)

# %%
page = every.report("espresso.html")  # the interactive page: one file that works offline
f"{len(page) / 1e6:.1f} MB"
