"""Draw attributions with matplotlib, as in `captum.attr.visualization`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy.compat.unknown_names import name_lookup
from seewhy.errors import UnknownName, UsageError

Floats = NDArray[Any]
METHODS = ("heat_map", "blended_heat_map", "original_image", "masked_image", "alpha_scaling")
COLORS: dict[str, Any] = {"positive": "Greens", "negative": "Reds", "absolute_value": "Blues", "all": None}


def visualize_image_attr(
    attr: Floats,
    original_image: Floats | None = None,
    method: str = "heat_map",
    sign: str = "absolute_value",
    plt_fig_axis: tuple[Any, Any] | None = None,
    outlier_perc: float = 2,
    cmap: Any = None,
    alpha_overlay: float = 0.5,
    show_colorbar: bool = False,
    title: str | None = None,
    fig_size: tuple[float, float] = (6, 6),
    use_pyplot: bool = True,
) -> tuple[Any, Any]:
    """Draw an attribution.

    Args:
        attr: `(height, width)`, or `(height, width, C)`, which is summed over the channels.
        original_image: `(height, width, C)`, floats in [0, 1] or integers in [0, 255].
        method: "heat_map", "blended_heat_map" (over the gray image), "original_image", "masked_image" (the image times the
            attribution) or "alpha_scaling" (the attribution as opacity).
        sign: "positive", "negative", "absolute_value" or "all".
        plt_fig_axis: A figure and axes to draw into.
        outlier_perc: Percent of the sum of absolute values above which values are cut off, largest first.
        cmap: A colormap of matplotlib, or its name.
        alpha_overlay: Opacity of the map in "blended_heat_map".
        show_colorbar: Add a color bar below.
        title: Title of the axes.
        fig_size: Size in inches.
        use_pyplot: True to make the figure with pyplot and show it.

    Returns:
        The figure and the axes.

    Raises:
        UsageError: matplotlib is not installed, or an argument is invalid.
    """
    check_choice("method", method, METHODS)
    check_choice("sign", sign, tuple(COLORS))
    if original_image is None and method != "heat_map":
        raise UsageError(f"method='{method}' needs original_image.")
    if sign == "all" and method in ("masked_image", "alpha_scaling"):
        raise UsageError(
            f"method='{method}' cannot show both signs; use sign='positive', 'negative' or 'absolute_value'."
        )
    figure, axes = plt_fig_axis or make_figure(fig_size, use_pyplot)
    axes.set_xticks([])
    axes.set_yticks([])
    values = normalize(np.asarray(attr, np.float64), sign, outlier_perc)
    image = None if original_image is None else as_bytes(np.asarray(original_image))
    drawn = draw(axes, values, image, method, colormap(cmap, sign), -1.0 if sign == "all" else 0.0, alpha_overlay)
    if show_colorbar:
        add_colorbar(figure, axes, drawn)
    if title:
        axes.set_title(title)
    if use_pyplot:
        import_pyplot().show()
    return figure, axes


def visualize_image_attr_multiple(
    attr: Floats,
    original_image: Floats | None,
    methods: Sequence[str],
    signs: Sequence[str],
    titles: Sequence[str] | None = None,
    fig_size: tuple[float, float] = (8, 6),
    use_pyplot: bool = True,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """Draw an attribution in several ways, next to each other.

    Args:
        attr: See `visualize_image_attr`.
        original_image: See `visualize_image_attr`.
        methods: The method of each panel.
        signs: The sign of each panel.
        titles: The title of each panel.
        fig_size: Size in inches.
        use_pyplot: True to make the figure with pyplot and show it.
        **kwargs: Other arguments of `visualize_image_attr`, for all panels.

    Returns:
        The figure and a list of axes; the axes themselves for one panel.

    Raises:
        UsageError: The lists have different lengths, or see `visualize_image_attr`.
    """
    if len(methods) != len(signs) or (titles is not None and len(titles) != len(methods)):
        raise UsageError("methods, signs and titles need the same number of entries, one for each panel.")
    figure, axes = make_figure(fig_size, use_pyplot, len(methods))
    panels = [axes] if len(methods) == 1 else list(axes)
    for panel, method, sign, title in zip(panels, methods, signs, titles or [""] * len(methods), strict=True):
        visualize_image_attr(
            attr, original_image, method, sign, (figure, panel), title=title, use_pyplot=False, **kwargs
        )
    figure.tight_layout()
    if use_pyplot:
        import_pyplot().show()
    return figure, axes if len(methods) == 1 else panels


def normalize(attr: Floats, sign: str, outlier_percent: float) -> Floats:
    """Return the values of one sign, divided by a threshold and cut to [-1, 1]."""
    values = attr.sum(axis=2) if attr.ndim == 3 else attr
    if sign == "positive":
        values = np.maximum(values, 0)
    elif sign == "negative":
        values = np.minimum(values, 0)
    elif sign == "absolute_value":
        values = np.abs(values)
    ordered = np.sort(np.abs(values).flatten())
    sums = np.cumsum(ordered)
    threshold = ordered[np.argmax(sums >= sums[-1] * 0.01 * (100 - outlier_percent))]
    if threshold == 0:
        raise UsageError(f"the attribution has no values for sign='{sign}'; use another sign, or look at the numbers.")
    result: Floats = np.clip(values / (-threshold if sign == "negative" else threshold), -1, 1)
    return result


def draw(axes: Any, values: Floats, image: Floats | None, method: str, colors: Any, low: float, opacity: float) -> Any:
    """Draw one panel and return what a color bar describes; None if there are no colors."""
    if image is not None and method == "original_image":
        axes.imshow(image.squeeze(2) if image.ndim == 3 and image.shape[2] == 1 else image)
    elif image is not None and method == "masked_image":
        axes.imshow(np.clip((image * values[..., None]).astype(int), 0, 255))
    elif image is not None and method == "alpha_scaling":
        axes.imshow(np.concatenate([image, (values[..., None] * 255).astype(int)], axis=2))
    else:
        if image is not None and method == "blended_heat_map":
            axes.imshow(image.mean(axis=2), cmap="gray")
        opacity = opacity if method == "blended_heat_map" else 1.0
        return axes.imshow(values, cmap=colors, vmin=low, vmax=1, alpha=opacity)
    return None


def add_colorbar(figure: Any, axes: Any, drawn: Any) -> None:
    """Add a color bar below the axes, or the space of one, so that panels stay aligned."""
    from mpl_toolkits.axes_grid1 import make_axes_locatable  # type: ignore[import-untyped]

    place = make_axes_locatable(axes).append_axes("bottom", size="5%", pad=0.1)
    if drawn is None:
        place.axis("off")
    else:
        figure.colorbar(drawn, orientation="horizontal", cax=place)


def make_figure(size: tuple[float, float], use_pyplot: bool, panels: int = 1) -> tuple[Any, Any]:
    """Return a figure with panels next to each other."""
    pyplot = import_pyplot()
    if use_pyplot:
        return pyplot.subplots(1, panels, figsize=size)  # type: ignore[no-any-return]
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    return figure, figure.subplots(1, panels)


def import_pyplot() -> Any:
    """Import matplotlib.pyplot. Raises UsageError if it is not installed."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise UsageError("the figures are drawn with matplotlib; run: pip install matplotlib") from None
    return pyplot


def colormap(given: Any, sign: str) -> Any:
    """Return the colormap of a sign: for both, red to white to green."""
    if given is not None or COLORS[sign] is not None:
        return given if given is not None else COLORS[sign]
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("RdWhGn", ["red", "white", "green"])


def as_bytes(image: Floats) -> Floats:
    """Return an image as integers in [0, 255]."""
    scaled = image * 255 if image.max() <= 1 else image
    pixels: Floats = np.clip(scaled.astype(int), 0, 255)
    return pixels


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UnknownName(name, value, choices, hint=f"Use one of {', '.join(choices)}.")


__getattr__ = name_lookup(
    __name__, "captum.attr.visualization", ("visualize_image_attr", "visualize_image_attr_multiple")
)
