"""Helpers for the lessons: setup, claims, sliders, tables, and pictures of small arrays."""

import base64
import io
import logging
import sys
from pathlib import Path

import numpy as np

from ..experiments.drawing import COLOURS, OTHERS, STYLE, colour
from .agreement import NO_LONGER

__all__ = ["COLOURS", "OTHERS", "claim", "colour", "need", "print_table", "setup", "show_arrays", "slide"]

FONT_SIZE = 13


class NotInstalled(Exception):
    """Raised to stop a notebook, which then shows only the message, without a traceback."""

    def _render_traceback_(self):
        return [str(self)]


def setup(threads=1):
    """Prepare a notebook: set the style of figures and printed numbers and the number of BLAS threads; ask for guesses.

    The matrices of the small base model are too small to benefit from several threads, and timings are more
    reproducible with one thread.

    Parameters
    ----------
    threads : int; use more than 1 only for models as large as SmolLM2
    """
    import matplotlib
    from matplotlib import pyplot as plt
    from threadpoolctl import threadpool_info, threadpool_limits

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # hide messages about the font cache
    shell = notebook_shell()
    if shell is None:
        matplotlib.use("Agg")
    else:
        shell.run_line_magic("matplotlib", "inline")  # even if MPLBACKEND is set
        from IPython.display import Javascript, display

        display(Javascript(filename=str(Path(__file__).with_name("guesses.js"))))
    plt.rcParams.update({**STYLE, "figure.dpi": 100, "font.size": FONT_SIZE, "axes.titlesize": FONT_SIZE + 1})
    np.set_printoptions(precision=3, suppress=True, linewidth=110)
    allowed = max((pool["num_threads"] for pool in threadpool_info()), default=threads)  # such as OMP_NUM_THREADS
    threadpool_limits(min(threads, allowed))


def need(model):
    """Stop the notebook with installation instructions if the package that contains a model is missing."""
    from ..formats.packaged import packaged_model

    try:
        packaged_model(model)
    except FileNotFoundError as error:
        raise NotInstalled(f"This lesson needs the model {error}") from None


def notebook_shell():
    """Return IPython's shell in a Jupyter kernel, or None elsewhere."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell if hasattr(shell, "kernel") else None


def claim(holds, otherwise):
    """Check a statement about a lesson's results. If the statement is false, print `otherwise` and continue.

    Parameters
    ----------
    holds : bool or array of bool
    otherwise : str, a sentence
    """
    if not np.all(holds):
        print(f"{NO_LONGER} {otherwise}")


def slide(draw, values, label, seconds=0.8):
    """Show one picture per value: with a slider in a live notebook, and as an animation in a saved one.

    Parameters
    ----------
    draw : function of a value that draws a pyplot figure; all figures must have the same size
    values : list
    label : str, the text before the slider
    seconds : float, time between two pictures of the animation
    """
    from IPython.display import display
    from PIL import Image

    pictures = [drawn(draw, value) for value in values]
    frames = [Image.open(io.BytesIO(png)).convert("RGB") for png in pictures]
    all_in_one = Image.new("RGB", (frames[0].width, frames[0].height * len(frames)))
    for i, frame in enumerate(frames):
        all_in_one.paste(frame, (0, i * frame.height))
    palette = all_in_one.quantize(128, dither=Image.Dither.NONE)  # the frames of an animation share one palette
    colours = np.array(palette.getpalette()).reshape(-1, 3)
    colours[colours.sum(axis=1).argmax()] = 255  # keep the background white: quantising averages light colours
    palette.putpalette(colours.ravel().tolist())
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    file = io.BytesIO()
    first.save(file, "PNG", save_all=True, append_images=others, duration=int(1000 * seconds), loop=0)
    bundle = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": f"<slider: {label}>"}
    if notebook_shell() is not None:
        bundle = slider(pictures, values, label)._repr_mimebundle_() | bundle
    display(bundle, raw=True)


def drawn(draw, value):
    """Call draw(value); return the picture as the bytes of a PNG file."""
    from matplotlib import pyplot as plt

    plt.close("all")
    draw(value)
    file = io.BytesIO()
    plt.savefig(file, format="png")
    plt.close("all")
    return file.getvalue()


def slider(pictures, values, label):
    """Return a widget that shows one of several PNG images, chosen with a slider."""
    import ipywidgets

    image = ipywidgets.Image(value=pictures[0], format="png", layout={"max_width": "100%", "align_self": "flex-start"})
    knob = ipywidgets.SelectionSlider(options=[(str(value), i) for i, value in enumerate(values)], description=label)
    knob.observe(lambda change: image.set_trait("value", pictures[change["new"]]), "value")
    return ipywidgets.VBox([knob, image])


def print_table(head, rows):
    """Print a table whose first column is left-aligned and whose other columns are right-aligned.

    Parameters
    ----------
    head : list of str, one for each column
    rows : list of lists of str, each with one string for each column
    """
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) + 3 for i in range(len(head))]
    for first, *rest in lines:
        print(first.ljust(widths[0]) + "".join(text.rjust(w) for text, w in zip(rest, widths[1:])))


def show_arrays(*items):
    """Draw small matrices side by side as grids of numbers, so that you can check a product by eye.

    Parameters
    ----------
    items : (name, array) pairs, where each array has two axes and is drawn with its shape; and strings, which are drawn
        as signs between the arrays, such as "=" or "@"
    """
    from matplotlib import pyplot as plt

    items = [item if isinstance(item, str) else (item[0], np.asarray(item[1])) for item in items]
    arrays = [item[1] for item in items if not isinstance(item, str)]
    for array in arrays:
        if array.ndim != 2:
            raise ValueError(f"items: got an array of shape {array.shape}, expected two axes")
    height = max(len(array) for array in arrays)
    limit = max(1.0, *(abs(array[np.isfinite(array)]).max(initial=0.0) for array in arrays))
    figure, axes = plt.subplots()
    left = 0.0
    for item in items:
        if isinstance(item, str):
            width = 0.7 + 0.4 * max(1, len(item))
            axes.text(left + width / 2, height / 2, item, ha="center", va="center", fontsize=22)
            left += width
            continue
        name, array = item
        rows, columns = array.shape
        top = (height - rows) / 2
        box = (left, left + columns, top + rows, top)
        axes.imshow(array, cmap="PuOr", vmin=-limit, vmax=limit, alpha=0.6, extent=box)
        for i, j in np.ndindex(rows, columns):
            axes.text(left + j + 0.5, top + i + 0.5, f"{array[i, j]:.3g}", ha="center", va="center", fontsize=13)
        axes.text(left + columns / 2, top - 0.15, f"{name}\n{array.shape}", ha="center", va="bottom")
        left += columns
    axes.set(xlim=(-0.2, left + 0.2), ylim=(height + 0.1, -1.3))
    axes.set_axis_off()
    figure.set_size_inches(0.62 * left, 0.62 * (height + 1.4))
    plt.show()
