"""Matplotlib figures without pyplot: they need no display or notebook backend, and names in them
are not interpreted as mathematical notation.
"""

import io
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sasv.core.errors import MissingExtra, SasvError, reason_of
from sasv.core.files import write_bytes

logger = logging.getLogger("sasv")


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Any:
    """Return an empty figure that is rendered with Agg.

    Args:
        width, height: size in inches.
        layout: layout engine of matplotlib.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    matplotlib = load_matplotlib()
    figure = matplotlib.figure.Figure(figsize=(width, height), layout=layout)
    matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    return figure


def load_matplotlib() -> Any:
    """Import matplotlib regardless of the backend that the environment selects, which may not exist
    here (that of a notebook, for instance).
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
        import matplotlib.backends.backend_agg
        import matplotlib.figure
        import matplotlib.image
        import matplotlib.text
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots", "a plot") from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib


def render(figure: Any, dots: int = 100) -> bytes:
    """Return a figure as a PNG file. Texts are drawn literally, including dollar signs.

    Args:
        figure: of ``new_figure``.
        dots: dots per inch.
    """
    matplotlib = load_matplotlib()
    for text in figure.findobj(matplotlib.text.Text):
        text.set_parse_math(False)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that are missing in the font become boxes
        figure.savefig(stream, format="png", dpi=dots)
    return stream.getvalue()


def save_figure(figure: Any, path: str | os.PathLike[str], dots: int) -> None:
    """Write a figure atomically as a PNG file."""
    write_bytes(Path(path), render(figure, dots))


def attempt(draw: Callable[..., Any], *arguments: Any) -> bytes | None:
    """Return the figure that a function draws as a PNG file; None, with a warning, if drawing
    fails.

    A job of many hours must not fail because a plot of its result cannot be drawn.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        return render(draw(*arguments))
    except (SasvError, MemoryError):
        raise
    except Exception as error:
        logger.warning(
            "%s: this plot is left out: %s", draw.__name__.replace("_", " "), reason_of(error)
        )
        return None
