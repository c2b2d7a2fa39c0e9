"""Build the book with Sphinx: a website with lessons, exercises, results, specification and API reference.

The pages are generated from the files of a clone: the notebooks with their stored outputs, the folders' READMEs, and
the docstrings. Only the table of contents is specific to the book. The pages keep the clone's folder layout, so that
links between them work.
"""

import base64
import html
import io
import json
import os
import re
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from ..experiments.evidence import interval
from ..experiments.methods import by_rank
from ..formats import check_folder, read_json
from .notebooks import notebook_text
from .release import notebook_of
from .sets import read_sets

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"```.*?```|`[^`]*`|(!?)\[([^]]*)\]\(([^)\s]+)\)", re.DOTALL)  # matches code as well, to skip it
NOT_REFERENCE = ("cli", "exercises", "recipes", "llama_cpp", "book_conf")  # modules that are not part of the API
EVENING = re.compile(r"# (\d\d · [^\\]*)\\n.*\| \*\*Path\*\* \|", re.DOTALL)  # titles on the evening path
SOURCE = {".py": "python", ".mjs": "javascript", ".c": "c"}  # source files that get their own pages
ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="#0072b2" d="M1 1h9v9H1z"/>
<path fill="#d55e00" d="M12 1h3v9h-3zM1 12h9v3H1z"/></svg>
"""  # a weight matrix and an adapter's two thin factors
FRAME = """# {title}

```{{raw}} html
<p><a href="{page}">Open on a separate page</a></p>
<iframe src="{page}" title="{title}" style="width: 100%; height: 90vh; border: 1px solid #8886"></iframe>
```
"""
SLIDER = """<div>{pictures}<br><label>{label} <input type="range" min="1" max="{n}" value="1"
oninput="this.closest('div').querySelectorAll('img').forEach((each, i) => {{ each.hidden = i + 1 != this.value; }})">
</label></div>"""
CURVE = """
```{{raw}} html
<div class="draw-your-guess" data-curve="{data}" data-axis="{axis}">
<p><strong>Draw your guess.</strong> {question} Drag the points, or use the arrow keys.</p></div>
```

"""
CURVES = {  # experiment on MiniLM -> question, x axis, range of the y axis, x values with the accuracies of all seeds
    "rank_sweep": (
        "Which test accuracy (%) does LoRA on q and v reach at each rank?",
        "rank r",
        (75, 85),
        lambda outcome: by_rank(outcome["accuracy"], "qv"),
    ),
    "low_data": (
        "Which test accuracy (%) does LoRA reach with so few training snippets? 50 % is chance.",
        "training snippets",
        (50, 100),
        lambda outcome: {n: outcome["accuracy"]["all_r8"][n] for n in sorted(outcome["accuracy"]["all_r8"], key=int)},
    ),
    "truncation": (
        "Every update of full fine-tuning is truncated to its leading directions. Which test accuracy (%) is left?",
        "directions that are left",
        (50, 100),
        lambda outcome: {r: of["accuracy"] for r, of in outcome["cut"].items() if r != "0"},
    ),
}
CONTENTS = {  # part of the book -> path patterns of its pages, each of which is listed once
    "To play with": ("figures/playground.md", "figures/smollm2/explorer.md"),
    "Lessons": ("notebooks/README.md", "notebooks/*.ipynb", "notebooks/SYMBOLS.md", "notebooks/*.md"),
    "Exercises": ("exercises/*.ipynb",),
    "Results": ("figures/*.md",),
    "Porting": ("lora_np/reference/*.md",),
    "Reference": ("api/*.md",),
    "Folders": ("lora_np/README.md", "lora_np/[!r]*/*.md", "lora_np/*.md", "tests/*.md", ".github/*.md"),
}


def build(folder):
    """Build the book.

    Parameters
    ----------
    folder : path of the folder to which the website is written; its first page is index.html

    Raises
    ------
    ValueError
        If the package is not in a clone, or Sphinx prints a warning or an error.
    """
    check_folder(folder, "folder")
    if not (ROOT / "notebooks" / "00_start_here.ipynb").exists():
        raise ValueError("book: expected a clone of lora_np with its notebooks")
    try:
        from sphinx.cmd.build import build_main
    except ModuleNotFoundError:
        raise ValueError('book: Sphinx is missing; install it with: pip install ".[book]"') from None

    with tempfile.TemporaryDirectory() as scratch:
        sources, trees, site = (Path(scratch) / name for name in ("sources", "trees", "site"))
        sources.mkdir()
        pages = write_sources(sources)
        words = ["-W", "--keep-going", "-q", "-b", "html", "-d", trees, sources, site]
        if build_main(list(map(str, words))):
            raise ValueError("book: Sphinx failed for the reasons printed above")
        for page, text in pages.items():  # readers download the clone's own files
            (site / "_sources" / page).write_text(text, "utf-8")
        shutil.copytree(site, folder, dirs_exist_ok=True)


def write_sources(folder):
    """Write the source files of all pages, and `conf.py`; return a dict, page -> its original text."""
    pages = {"index.md": (ROOT / "README.md").read_text("utf-8")}
    for pattern in ("notebooks/*", "figures/*.md", "lora_np/**/*.md", ".github/*.md", "tests/*.md"):
        for path in ROOT.glob(pattern):
            if path.suffix in (".md", ".ipynb"):
                pages[path.relative_to(ROOT).as_posix()] = path.read_text("utf-8")
    for path in ROOT.glob("figures/**/*.html"):
        name = path.relative_to(ROOT)
        (folder / "extra" / "pages" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "extra" / "pages" / name)
        [title] = re.findall("<title>(.*)</title>", path.read_text("utf-8"))
        page = f"{'../' * (len(name.parts) - 1)}pages/{name.as_posix()}"
        pages[name.with_suffix(".md").as_posix()] = FRAME.format(title=title, page=page)
    pages |= {f"exercises/{name}.ipynb": notebook_text(notebook_of(of, "student")) for name, of in read_sets().items()}
    pages |= {f"api/{room.parent.name}.md": reference(room.parent) for room in ROOT.glob("lora_np/*/README.md")}
    pages["index.md"] += contents(pages)
    for page, text in pages.items():
        if page.endswith(".ipynb"):
            notebook = json.loads(text)
            for cell in notebook["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = with_links(page, "".join(cell["source"]), folder)
                alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
                for output in cell.get("outputs", ()):
                    with_slider(output.get("data", {}), alt)
            text = json.dumps(notebook)
        else:
            text = with_curve(page, with_links(page, text, folder))
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(text, "utf-8")
    (folder / "icon.svg").write_text(ICON, "utf-8")
    shutil.copy(Path(__file__).parent / "book_conf.py", folder / "conf.py")
    (folder / "static").mkdir()
    for name in ("book.css", "guesses.js", "curves.js"):
        shutil.copy(Path(__file__).parent / name, folder / "static")
    return pages


def contents(pages):
    """Return the table of contents, shown next to every page; ● marks the lessons of "LoRA in an evening"."""
    lists, rest = [], sorted(pages)
    for part, patterns in CONTENTS.items():
        names = dict.fromkeys(page for pattern in patterns for page in rest if fnmatch(page, pattern))
        rest = [page for page in rest if page not in names]
        lines = ""
        for name in names:
            page, title = name.rpartition(".")[0], EVENING.search(pages[name])
            lines += f"{title[1]} ● <{page}>\n" if title else f"{page}\n"
        lists.append(f"\n\n```{{toctree}}\n:hidden:\n:caption: {part}\n\n{lines}```\n")
    return "".join(lists)


def reference(room):
    """Return the page that documents a subpackage's functions, module by module."""
    lines = [f"# lora_np.{room.name}\n"]
    for path in sorted(room.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.name not in ("__init__.py", "__main__.py") and not set(parts) & set(NOT_REFERENCE):
            module = ".".join(parts)
            lines.append(f"## {'.'.join(parts[2:])}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n")
    return "\n".join(lines)


def with_links(page, text, folder):
    """Redirect a page's links: from folders to their READMEs, and from source files to the pages that show them."""
    where = os.path.dirname(page)

    def leading(match):
        sign, words, target = match.groups(default="")
        path, hash, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        name = os.path.normpath(os.path.join(where, path))
        there = ROOT / name
        if there.is_dir():
            there, name = there / "README.md", f"{name}/README.md"
        if name == "README.md":
            name = "index.md"
        elif there.suffix == ".html" and name.startswith("figures"):
            name = f"{name.removesuffix('.html')}.md"
        elif there.suffix in SOURCE:
            name = f"{name}.md"
            write_source(folder / name, there)
        elif there.is_file() and there.suffix not in (".md", ".ipynb"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(there, folder / name)
        elif not there.exists() and not name.startswith("exercises/"):
            return words
        return f"{sign}[{words}]({os.path.relpath(name, where or '.')}{hash}{anchor})"

    return re.sub(r'<a id="(\w+)"></a>\n', r"(\1)=\n", LINK.sub(leading, text))


def with_curve(page, text):
    """Insert "Draw your guess" (see curves.js) before the results of an experiment's page."""
    name = Path(page).stem
    if name not in CURVES or page != f"figures/{name}.md":
        return text
    question, axis, range_, values_of = CURVES[name]
    values = values_of(read_json(ROOT / "figures" / "minilm" / f"{name}.json"))
    mean, low, high = zip(*(interval(row) for row in values.values()))
    data = {"x": list(map(str, values)), "mean": mean, "low": low, "high": high, "range": range_}
    curve = CURVE.format(data=html.escape(json.dumps(data)), axis=axis, question=question)
    return text.replace("\n## On MiniLM", curve + "## On MiniLM", 1)


def with_slider(data, alt):
    """Replace an output's animation (see `lesson.slide`) with a slider over its frames; `alt` describes the frames."""
    from PIL import Image, ImageSequence

    label = re.fullmatch("<slider: (.*)>", "".join(data.get("text/plain", "")))
    if not label:
        return
    pictures, animation = [], Image.open(io.BytesIO(base64.b64decode("".join(data["image/png"]))))
    for i, frame in enumerate(ImageSequence.Iterator(animation), 1):
        file = io.BytesIO()
        frame.copy().save(file, "PNG")
        source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
        words = html.escape(f"{alt} ({label[1]}: picture {i} of {animation.n_frames})".strip())
        pictures.append(f'<img alt="{words}" src="{source}"{" hidden" * (i > 1)}>')
    data.clear()
    data["text/html"] = SLIDER.format(pictures="".join(pictures), label=html.escape(label[1]), n=len(pictures))


def write_source(page, path):
    """Write a page that shows a source file."""
    page.parent.mkdir(parents=True, exist_ok=True)
    language = SOURCE[path.suffix]
    text = f"---\norphan: true\n---\n\n# {path.name}\n\n"
    page.write_text(f"{text}````{{code-block}} {language}\n:linenos:\n\n{path.read_text('utf-8')}\n````\n", "utf-8")
