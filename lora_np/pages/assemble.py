"""Assemble a page from its files: one HTML file without requests, which any browser can open."""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).parent
PLACES = re.compile(r"/\*(STYLE|SCRIPT|DATA)\*/")


def page_text(name, scripts, data=None):
    """Return the text of a page.

    Parameters
    ----------
    name : str, the page is NAME.html in this folder, and its last script is NAME.mjs
    scripts : list of str, the modules that NAME.mjs imports, relative to this folder, in order of their imports
    data : dict, the page's data, or None; `<` is escaped, so that no text closes its script element
    """
    sources = [(FOLDER / path).read_text("utf-8") for path in (*scripts, f"{name}.mjs")]
    values = {
        "STYLE": (FOLDER / "style.css").read_text("utf-8"),
        "SCRIPT": "\n".join(map(without_modules, sources)),
        "DATA": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return PLACES.sub(lambda place: values[place[1]], (FOLDER / f"{name}.html").read_text("utf-8"))


def without_modules(source):
    """Return a JavaScript module's source without imports and exports, to be put into one script with the others."""
    return re.sub(r"^export ", "", re.sub(r"^import .*;\n", "", source, flags=re.MULTILINE), flags=re.MULTILINE)
