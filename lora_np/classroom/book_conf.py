"""Sphinx configuration of the book; `book.py` copies it next to the pages' sources."""

import re

from lora_np.classroom.book_links import link_words

project, author, copyright = "lora_np", "the lora_np authors", "the lora_np authors, MIT licence"
extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc", "sphinx-mathjax-offline"]
root_doc = "index"
default_role = "code"
add_module_names = False
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True  # a default's name, not its value, which may be a path on this computer
numpydoc_show_class_members = False
html_theme = "sphinx_book_theme"
html_title = "lora_np"
html_context = {"default_mode": "auto"}  # light or dark, as in the reader's system settings
html_favicon = "icon.svg"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_js_files = [(script, {"defer": "defer"}) for script in ("guesses.js", "curves.js")]
html_theme_options = {"navbar_persistent": []}  # no second search field above the sidebar's
html_extra_path = ["extra"]
html_show_sphinx = False
myst_enable_extensions = ["amsmath", "dollarmath", "html_image"]
myst_heading_anchors = 3
nb_render_markdown_format = "gfm"  # with tables
nb_execution_mode = "off"  # use the notebooks' stored outputs


def as_plain_text(app, what, name, obj, options, lines):
    """Treat docstrings as plain text without reStructuredText markup; an indented paragraph is code."""
    text, code = [], False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not code and text and not text[-1]:
            text += ["::", ""]
            code = True
        code = code and (indented or not line)
        text.append(line if code else re.sub(r"(`+[^`]*`+)|([*|_\\])", lambda match: match[1] or "\\" + match[2], line))
    lines[:] = text


def skip(app, what, name, obj, skipped, options):
    """Skip the fields of a NamedTuple, which its own docstring describes, and methods that scikit-learn adds."""
    return str(getattr(obj, "__doc__", "")).startswith("Alias for field") or name.endswith("_request") or None


def setup(app):
    app.connect("autodoc-process-docstring", as_plain_text, priority=100)  # before numpydoc
    app.connect("autodoc-skip-member", skip)
    app.connect("doctree-resolved", link_words)
