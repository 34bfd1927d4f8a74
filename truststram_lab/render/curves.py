"""Curves as a small PNG: drawn with matplotlib's Figure, never pyplot, loaded on use."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from .document import Picture
from .numbers import clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curves_picture"]

_DPI = 100
_INCHES = (6.4, 3.0)
#: At least 3:1 against white and near-black; dashes tell curves apart without colours.
_COLOURS = ("#0f7ec2", "#b8651b", "#6f8f1f", "#a05fc0", "#c2507a", "#2c8f83", "#888888")
_DASHES = ("solid", "dashed", "dotted", "dashdot")
#: Where axes and their words stand, on light and dark pages.
_INK = "#808080"


def curves_picture(
    said: str, curves: Mapping[str, Sequence[tuple[int, float]]], *, across: str, up: str
) -> Picture:
    """One line a curve of points ``(x, y)``, on a transparent ground.

    Args:
        said: the conclusion, as the picture's alternative text.
        across, up: what the axes count.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(_INK)
    axes.tick_params(colors=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for place, (name, points) in enumerate(curves.items()):
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(
            xs, ys, label=_plain(name), color=_COLOURS[place % len(_COLOURS)], linewidth=1.8,
            linestyle=_DASHES[place % len(_DASHES)], marker="o" if len(xs) == 1 else "",
        )  # fmt: skip
    axes.set_xlabel(across, color=_INK)
    axes.set_ylabel(up, color=_INK)
    axes.legend(frameon=False, labelcolor=_INK, fontsize=8)
    return Picture(said, base64.b64encode(_small_png(figure)).decode("ascii"), int(_INCHES[0] * 85))


def _plain(name: str) -> str:
    """A label that matplotlib neither hides (a leading underscore) nor sets as a formula, of
    characters that its font has; the card's tables have the name itself."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    shown = "".join(c if font.get_char_index(ord(c)) else "?" for c in clip(name, 40))
    return " " * shown.startswith("_") + shown.replace("$", r"\$")


def _small_png(figure: Figure) -> bytes:
    """The figure with a palette of 64 colours, a third of the size that it would have."""
    from PIL import Image

    whole, small = BytesIO(), BytesIO()
    figure.savefig(whole, dpi=_DPI, format="png")
    with Image.open(whole) as image:
        palette = image.convert("RGBA").quantize(64, method=Image.Quantize.FASTOCTREE)
    palette.save(small, "PNG", optimize=True)
    return small.getvalue()
