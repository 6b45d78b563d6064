# %% [markdown]
# # Layers and methods
#
# Which layer, which method? seewhy suggests a layer; here you compare others.

# %%
import seewhy

model = seewhy.load_model()
photo = seewhy.sample("chelsea")
methods = ["gradcam", "hirescam", "layercam", "eigencam"]
e = seewhy.explain(model, photo, methods=methods, layers=["blocks.2.1", "blocks.4.2", "bn2"], include_suggested=True)
e.suggested

# %% [markdown]
# Rows are layers, columns are methods. Early layers are fine and noisy, late layers are coarse and depend more on the class.

# %%
e.figure(rows="layers", columns="methods", width=7, dpi=80)

# %% [markdown]
# How much of a map is positive evidence, and which flags does it have?

# %%
for layer in e.layers:
    print(layer, [round(e.positive_evidence(method=method, layer=layer), 2) for method in methods])
print(e.flags(method="gradcam", layer="bn2"))

# %% [markdown]
# Every method has a card: formula, paper, what to expect, pitfalls.

# %%
card = seewhy.methods.LayerCAM.card
print(card.formula, card.expect, card.pitfalls, sep="\n")

# %% [markdown]
# For a folder of photos, `seewhy choose photos/` compares layers and methods, and confirms the winner on images that did not select it.
