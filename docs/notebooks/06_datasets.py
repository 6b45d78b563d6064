# %% [markdown]
# # A folder of images
#
# `explain_all` writes one row per image, and can be interrupted at any time.

# %%
import shutil
from pathlib import Path

import seewhy

Path("photos").mkdir(exist_ok=True)
for name in ("coffee", "chelsea", "cat_espresso"):
    shutil.copy(seewhy.sample(name), "photos")
run = seewhy.explain_all(None, "photos/", "run", targets=["predicted"])  # None: the embedded network

# %%
table = run.to_pandas().sort_values("id")
table[["id", "predicted", "probability", "border"]]

# %% [markdown]
# The same from the command line: `seewhy bulk photos/ --out run`, then `seewhy summary run` for a page about the entire run: where the
# model looks per class, outliers, clusters, findings such as a watermark.

# %%
e = seewhy.explain(seewhy.load_model(), sorted(map(str, Path("photos").iterdir())))
e.figure(rows="images", width=3.3, dpi=90)
