"""The playground: a page that trains the model of `micro.py` in the browser, by full fine-tuning and with LoRA."""

from ..formats import check_file, write_text
from .assemble import page_text

SCRIPTS = ("../micro.mjs", "random.mjs", "drawing.mjs", "tours.mjs")


def playground(out):
    """Write the page to a file.

    Raises
    ------
    ValueError, OSError
        If the file cannot be written.
    """
    check_file(out, "out")
    write_text(out, page_text("playground", SCRIPTS))
