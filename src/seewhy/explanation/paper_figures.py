"""Figures for papers, drawn with matplotlib: the methods `plot`, `figure` and `caption` of `Explanation`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seewhy.explanation.data import ExplanationData, require_single_image
from seewhy.explanation.figure_captions import describe_panels
from seewhy.explanation.measured_maps import MeasuredMaps
from seewhy.explanation.panel_grid import (
    ONE_COLUMN,
    build_grid,
    check_names,
    check_others,
    check_sizes,
    default_width,
    make_bar,
    make_panel,
    number_of,
    panel_settings,
    require_matplotlib,
    select_image,
)
from seewhy.explanation.panel_maps import PanelMap, peak_of_targets
from seewhy.explanation.panel_selection import Dimensions, arrange, select_maps
from seewhy.explanation.selection import LayerChoice, MethodChoice, TargetChoice, find_key
from seewhy.rendering.overlays import OverlayStyle
from seewhy.rendering.panels import PanelColors, PanelGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from seewhy.rendering.paper_figure import PaperFigure


@dataclass(frozen=True, eq=False)
class PaperFigures(MeasuredMaps):
    """The methods of `Explanation` that draw figures with matplotlib."""

    def plot(
        self,
        ax: Axes | None = None,
        *,
        method: MethodChoice = None,
        target: TargetChoice = None,
        layer: LayerChoice = None,
        image: int | None = None,
        style: OverlayStyle | None = None,
        scale: str | float | None = None,
        signed: bool = False,
        colors: str | Colormap | None = None,
        interpolation: str = "linear",
        crop: bool = False,
        box: float | None = None,
        depth: int | None = None,
        title: str = "",
        color_bar: bool = True,
        width: float = ONE_COLUMN,
        dpi: float = 300,
        font_size: float = 8,
    ) -> Axes:
        """Draw one map into axes of matplotlib: photo, map, and a color bar. Requires `pip install 'seewhy[figures]'`.

        The coordinates of the axes are pixels of the photo, so you can add marks at known positions. A signal is drawn as
        curves over the colors of its map, and a volume as one slice.

        Args:
            ax: Axes of your figure. Default: those of a new figure, `plot().figure`.
            image: Index of the image in a batch.
            style: Opacity, blending, colors and scale, as for `overlay`.
            scale: "own": divide the map by its maximum. "shared": use the maximum over all targets of the image. A
                number: the value that gets the last color, in the units of the method. Default: that of `style`.
            signed: Draw negative values too, in a diverging color table with zero at its center.
            colors: Name of a color table of seewhy or matplotlib, or a Colormap. Default: that of `style`, or "RdBu_r"
                for signed maps.
            interpolation: "linear" between the centers of the cells, or "nearest" to show the cells.
            crop: Draw only the part of the photo that the network sees.
            box: Draw the box of `box(threshold)` at this threshold, in (0, 1].
            depth: Index of the slice of a volume. Default: the slice with the largest value.
            title: A title above the panel.
            color_bar: Draw a color bar at the right.
            width: Width of a new figure in inches.
            dpi: Pixels per inch of the photo and the map, at most the photo's own pixels for the photo.
            font_size: Size of the text in points.

        Returns:
            The axes of the panel.

        Raises:
            UsageError: matplotlib is not installed, `ax` is not an Axes, or another argument is invalid.
            ChoiceError: Several maps or images match.

        Example:
            >>> import seewhy
            >>> model = seewhy.load_model()
            >>> e = seewhy.explain(model, seewhy.sample("coffee"))
            >>> float(e.plot(width=3.3).figure.get_figwidth())
            3.3
        """
        check_sizes(width, dpi, font_size)
        settings = panel_settings(style, scale, signed, interpolation, crop, box, depth)
        single = select_image(self, image)
        panel = PanelMap(single, find_key(single, method, target, layer), settings)
        require_matplotlib()
        from seewhy.rendering import paper_figure as drawing

        palette = PanelColors(drawing.color_table(colors, settings.style.colors, signed=signed), settings.style, signed)
        maximum = peak_of_targets(panel) if settings.scale == "shared" else number_of(settings.scale)
        bar = make_bar(palette, [panel], maximum, {}) if color_bar else None
        drawn = make_panel(panel, maximum, palette, title)
        if ax is not None:
            drawing.draw_on_axes(drawing.check_axes(ax), drawn, bar, dpi, font_size)
            return ax
        grid = PanelGrid(((drawn,),), bar=bar, titles=bool(title))
        figure = drawing.draw_grid(grid, width, dpi, font_size)
        figure.caption, figure.latex_caption = (
            describe_panels([panel], maximum, latex=latex) for latex in (False, True)
        )
        return figure.axes[0]

    def figure(
        self,
        *others: ExplanationData,
        rows: Dimensions = None,
        columns: Dimensions = None,
        methods: MethodChoice | Sequence[MethodChoice] = None,
        targets: TargetChoice | Sequence[TargetChoice] = None,
        layers: LayerChoice | Sequence[LayerChoice] = None,
        images: int | Sequence[int] | None = None,
        style: OverlayStyle | None = None,
        scale: str | float | None = None,
        signed: bool = False,
        colors: str | Colormap | None = None,
        interpolation: str = "linear",
        crop: bool = False,
        box: float | None = None,
        depth: int | None = None,
        names: Mapping[str, str] | None = None,
        captions: bool = False,
        color_bar: bool = True,
        width: float | None = None,
        dpi: float = 300,
        font_size: float = 8,
    ) -> PaperFigure:
        """Draw many maps in rows and columns as one figure of matplotlib. Requires `pip install 'seewhy[figures]'`.

        Args:
            others: More explanations, of other images or models. Their images follow those of this explanation. Their
                targets and layers correspond by position, so that top 1 of each image fills one column.
            rows: What the rows are: "images", "targets", "methods" or "layers", or several of them, outermost first.
            columns: What the columns are. Default for both: chosen from what has several entries.
            methods: The methods to draw. Default: all.
            targets: The targets to draw. Default: all.
            layers: The layers to draw. Default: all.
            images: The indices of the images to draw. Default: all.
            style: Opacity, blending, colors and scale, as for `overlay`.
            scale: "own": divide each map by its maximum. "shared": use the maximum over all panels, which must be of one
                method. A number: the value that gets the last color, in the units of the method. Default: that of `style`.
            signed: As for `plot`.
            colors: As for `plot`.
            interpolation: As for `plot`.
            crop: As for `plot`.
            box: As for `plot`.
            depth: As for `plot`.
            names: Your texts for headers, such as `{"gradcam": "Grad-CAM"}`.
            captions: Write the caption below the panels. It is always available as `figure.caption`, and for LaTeX as
                `figure.latex_caption`.
            color_bar: Draw one color bar for all panels.
            width: Width in inches. Default: 3.3 for up to three columns of panels, else 6.9.
            dpi: As for `plot`.
            font_size: Size of the text in points.

        Returns:
            A `matplotlib.figure.Figure`. Its method `savefig` writes text as text to PDF and SVG.

        Raises:
            UsageError: matplotlib is not installed, an argument is invalid, or there are too many panels.
            UnknownName: A method, target, layer, dimension or color table does not exist.

        Example:
            >>> import seewhy
            >>> model = seewhy.load_model()
            >>> e = seewhy.explain(model, seewhy.sample("cat_espresso"), targets="top2", methods=["gradcam", "layercam"])
            >>> figure = e.figure(rows="targets", columns="methods", width=3.3)
            >>> len(figure.axes), figure.caption[:33]
            (5, 'Class activation maps of embedded')
        """
        settings = panel_settings(style, scale, signed, interpolation, crop, box, depth)
        selection = select_maps([self, *check_others(others)], methods, targets, layers, images)
        on_rows, on_columns = arrange(selection.sizes, rows, columns)
        width = default_width(selection, on_columns) if width is None else width
        check_sizes(width, dpi, font_size)
        require_matplotlib()
        from seewhy.rendering import paper_figure as drawing

        palette = PanelColors(drawing.color_table(colors, settings.style.colors, signed=signed), settings.style, signed)
        names = check_names(names)
        grid, maps, maximum = build_grid(selection, on_rows, on_columns, settings, palette, names)
        text, latex = (describe_panels(maps, maximum, latex=latex) for latex in (False, True))
        bar = make_bar(palette, maps, maximum, names) if color_bar else None
        grid = dataclasses.replace(grid, bar=bar, caption=text if captions else "")
        figure = drawing.draw_grid(grid, width, dpi, font_size)
        figure.caption, figure.latex_caption = text, latex
        return figure

    def caption(
        self,
        method: MethodChoice = None,
        target: TargetChoice = None,
        layer: LayerChoice = None,
        *,
        scale: str | float = "own",
        signed: bool = False,
        latex: bool = False,
    ) -> str:
        """Return a text that states model, method with formula and paper, target, layer with grid, and scale of a map.

        Args:
            scale: As for `plot`.
            signed: As for `plot`.
            latex: Escape the text for LaTeX, without the formula of the method.

        Returns:
            The text, in one paragraph.

        Raises:
            ChoiceError: Several maps match, or the explanation has several images.
        """
        require_single_image(self, "caption")
        settings = panel_settings(None, scale, signed, "linear", False, None, None)
        panel = PanelMap(self, self.key(method, target, layer), settings)
        maximum = peak_of_targets(panel) if scale == "shared" else number_of(settings.scale)
        return describe_panels([panel], maximum, latex=latex)
