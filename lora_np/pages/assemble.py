"""Assemble a page from its files: one HTML file that any browser can open and that makes no requests."""

import json
import re
from pathlib import Path

from ..formats import check_file, write_text

FOLDER = Path(__file__).parent
PLACES = re.compile(r"/\*(STYLE|SCRIPT|DATA)\*/")


def playground(out):
    """Write the playground, a page that trains the model of `micro.py` by full fine-tuning and with LoRA, to a file."""
    if Path(out).suffix.lower() != ".html":  # so that no other file is overwritten by mistake
        raise ValueError(f"out: got {str(out)!r}, expected a file name that ends in .html")
    check_file(out, "out")
    write_text(out, page_text("playground", ["../micro.mjs", "random.mjs", "drawing.mjs", "tours.mjs"]))


def page_text(name, scripts, data=None):
    """Return the text of a page.

    Parameters
    ----------
    name : str, the page is NAME.html in this folder, and its last script is NAME.mjs
    scripts : list of str, paths, relative to this folder, of the modules that NAME.mjs imports, in the order of imports
    data : dict, the page's data, or None; `<` is escaped, so that no text closes its script element
    """
    modules = [(Path(path).stem, (FOLDER / path).read_text("utf-8")) for path in (*scripts, f"{name}.mjs")]
    values = {
        "STYLE": (FOLDER / "style.css").read_text("utf-8"),
        "SCRIPT": "\n".join(as_function(*module) for module in modules),
        "DATA": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return PLACES.sub(lambda place: values[place[1]], (FOLDER / f"{name}.html").read_text("utf-8"))


def as_function(name, source):
    """Wrap a JavaScript module in a call that returns its exports, so that one script can hold several modules."""
    exports = re.findall(r"^export (?:const|function) ([\w$]+)", source, re.MULTILINE)
    source = re.sub(r"^export ", "", source, flags=re.MULTILINE)
    source = re.sub(r'^import (\{.*\}) from ".*?(\w+)\.mjs";$', r"const \1 = \2_exports;", source, flags=re.MULTILINE)
    return f"const {name}_exports = (() => {{\n{source}\nreturn {{ {', '.join(exports)} }};\n}})();"
