"""Curves as a small PNG: drawn with matplotlib's Figure, never pyplot, loaded on use."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from .document import Picture
from .numbers import clip

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

__all__ = ["curves_picture", "shares_picture"]

_DPI = 100
_INCHES = (6.4, 3.0)
#: At least 3:1 against white and near-black; dashes tell curves apart without colours.
_COLOURS = ("#0f7ec2", "#b8651b", "#6f8f1f", "#a05fc0", "#c2507a", "#2c8f83", "#888888")
_DASHES = ("solid", "dashed", "dotted", "dashdot")
#: Where axes and their words stand, on light and dark pages.
_INK = "#808080"
#: Lines of a picture of shares, and as many names as have room below it.
_LINES = 100
_NAMES_DRAWN = 14


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


def shares_picture(said: str, counts: np.ndarray, across: Sequence[str]) -> Picture:
    """A line a row and a column a name: the darker, the larger its share of the row.

    Where there are more rows than lines of the picture, they are sorted by their largest column,
    and neighbours are drawn as one.

    Args:
        said: the conclusion, as the picture's alternative text.
        counts: not negative, (rows, columns).
        across: the columns' names.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shares = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    many = len(shares) > _LINES
    if many:
        order = np.lexsort((-shares.max(axis=1), shares.argmax(axis=1)))
        shares = np.stack([part.mean(axis=0) for part in np.array_split(shares[order], _LINES)])
    figure = Figure(figsize=(_INCHES[0], 1.2 + min(len(shares), 24) * 0.12), layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    # One colour, the more of it the larger the share: it reads on light and dark pages.
    pixels = np.empty((*shares.shape, 4))
    pixels[..., :3] = [int(_COLOURS[0][place : place + 2], 16) / 255 for place in (1, 3, 5)]
    pixels[..., 3] = shares
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    axes.tick_params(colors=_INK, labelsize=8)
    axes.spines[:].set_color(_INK)
    axes.set_yticks([])
    axes.set_ylabel("Sites, sorted" if many else "Sites", color=_INK)
    if len(across) <= _NAMES_DRAWN:
        axes.set_xticks(range(len(across)), [_plain(name)[:12] for name in across])
    else:
        axes.set_xticks([])
        axes.set_xlabel("Classes", color=_INK)
    return Picture(said, base64.b64encode(_small_png(figure)).decode("ascii"), int(_INCHES[0] * 85))


def _plain(name: str) -> str:
    """A label that matplotlib neither hides (a leading underscore) nor sets as a formula.

    Names are ASCII on a platform; the font of the picture has no glyph for most of the rest.
    """
    shown = clip(name, 40).encode("ascii", "replace").decode("ascii").replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def _small_png(figure: Figure) -> bytes:
    """The figure with a palette of 64 colours, a third of the size that it would have."""
    from PIL import Image

    whole, small = BytesIO(), BytesIO()
    figure.savefig(whole, dpi=_DPI, format="png")
    with Image.open(whole) as image:
        palette = image.convert("RGBA").quantize(64, method=Image.Quantize.FASTOCTREE)
    palette.save(small, "PNG", optimize=True)
    return small.getvalue()
