"""A Gradio app around seewhy: a photo in; the class, an overlay, the check and the interactive page out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

import seewhy

MODEL = seewhy.load_model()  # loaded once; `explain` is safe to call from several threads


def explain_photo(photo: Image.Image | None, class_name: str) -> tuple[str, Image.Image | None, str | None]:
    """Return the answer in words, the overlay of the suggested layer, and the path of the page.

    Args:
        photo: The photo, or None if there is none yet.
        class_name: A class by name or index; "" for the predicted one.
    """
    if photo is None:
        return "Upload a photo first.", None, None
    target = class_name.strip() or "top1"
    try:
        explanation = seewhy.explain(MODEL, photo, targets=target, layers="stages", include_suggested=True)
    except seewhy.SeewhyError as error:  # an unknown class, a broken file
        return str(error), None, None
    explanation = seewhy.trust.check(MODEL, explanation)
    layer = explanation.suggested
    lines = [f"{label}: {probability:.1%}" for _, label, probability in explanation.top(3)]
    check = explanation.check(layer=layer)
    name = explanation.target_results[0].name
    lines.append(f"Layer {layer}: {check.sentence(name) if check else 'not checked.'}")
    page = Path(tempfile.mkdtemp()) / "report.html"
    explanation.report(page)
    return "\n".join(lines), explanation.overlay(layer=layer), str(page)


def build() -> Any:
    """Return the app."""
    import gradio

    return gradio.Interface(
        explain_photo,
        [
            gradio.Image(type="pil", label="Photo"),
            gradio.Textbox(label="Class (name or index; empty: the predicted one)"),
        ],
        [gradio.Textbox(label="Answer"), gradio.Image(label="Evidence"), gradio.File(label="Page with all layers")],
        title="seewhy",
        examples=[[str(seewhy.sample("cat_espresso")), "espresso"], [str(seewhy.sample("coffee")), ""]],
        flagging_mode="never",
    )


if __name__ == "__main__":
    build().launch()
