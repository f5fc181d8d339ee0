"""An image, and beside it where a model sees a class in it."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fgvc.explain.heatmap import Heat
from fgvc.provenance.files import atomic_path
from fgvc.reporting.figures import FORMATS, PNG_DPI, house_style

_SIDE, _TEXT = 2.6, 0.5  # inches


def write_heat(found: Heat, path: Path) -> None:
    """Draw a heat map over its image, beside the image, as PNG. The map's own range becomes the colours'."""
    with house_style():
        figure = Figure(figsize=(2 * _SIDE, _SIDE + _TEXT))
        FigureCanvasAgg(figure)
        tall = _SIDE / (_SIDE + _TEXT)
        side = found.pixels.shape[0]
        for place in (0, 1):
            axes = figure.add_axes((place / 2 + 0.005, 0.0, 0.49, tall))
            axes.set_axis_off()
            axes.imshow(found.pixels, extent=(0, side, side, 0))
            if place:
                axes.imshow(
                    found.heat, cmap="inferno", alpha=0.6, interpolation="bilinear", extent=(0, side, side, 0)
                )
        low, high = float(found.heat.min()), float(found.heat.max())
        told = (
            f"{found.class_name}: probability at each place, {low:.2f} to {high:.2f}\n"
            f"predicted: {found.predicted} ({100 * found.probability:.0f} %)"
        )
        figure.text(0.01, 1 - 0.25 * _TEXT / (_SIDE + _TEXT), told, va="top", size=7.5)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=PNG_DPI, metadata=FORMATS[".png"])
