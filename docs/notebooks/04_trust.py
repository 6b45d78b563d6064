# %% [markdown]
# # How far to trust a map
#
# A map is a claim: this region matters for the score. Cover it, and see.

# %%
import seewhy

model = seewhy.load_model()
photo = seewhy.sample("coffee")
e = seewhy.explain(model, photo, methods=["gradcam", "randomcam"], layers="bn2")
e = seewhy.trust.check(model, e)
for method in ("gradcam", "randomcam"):
    print(method, e.check(method=method).verdict)

# %% [markdown]
# The check costs 28 forward passes for all maps of an image. Of unrelated maps, about 5 % are confirmed by chance.

# %%
measured = seewhy.trust.measure(model, e, metrics=["srg", "average_drop"])
for row in measured.rows:
    print(row.method, {name: round(value, 3) for name, value in row.values.items()})

# %% [markdown]
# Cover a part of the photo yourself: does the class change?

# %%
pixels = seewhy.load_image(photo)
height, width = pixels.shape[:2]
left, top, right, bottom = e.box(0.5, method="gradcam")  # in pixels; a Rectangle is in fractions of the photo
rectangle = seewhy.trust.Rectangle(left / width, top / height, right / width, bottom / height)
result = seewhy.trust.CoverTest(model, pixels).run([rectangle])
print(result.changes[0].name, f"{result.changes[0].change:+.1%}")

# %%
e.overlay(method="gradcam", longest=360)
