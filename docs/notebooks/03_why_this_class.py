# %% [markdown]
# # Why this class and not that one
#
# Two classes compete on this photo.

# %%
import seewhy

model = seewhy.load_model()
photo = seewhy.sample("cat_espresso")
e = seewhy.explain(model, photo, fit="squash", targets=["espresso", "Egyptian cat"])
e.top(3)

# %% [markdown]
# Both maps on one scale: a target with little evidence looks weak.

# %%
e.figure(columns="targets", scale="shared", width=6.5, dpi=90)

# %% [markdown]
# The difference of the two scores. Blue is evidence for the cat, red for the espresso.

# %%
contrast = seewhy.explain(model, photo, fit="squash", targets="espresso", versus="Egyptian cat")
contrast.figure(signed=True, width=4, dpi=90)

# %% [markdown]
# Grad-CAM is linear in the score, so the map of a difference is the difference of the maps.

# %%
difference = e.map(target="espresso") - e.map(target="Egyptian cat")
float((difference - contrast.map()).abs().max())
