"""The form of the lessons: ideas are visible, drawing is folded, formulas are typeset, answers come on asking."""

import re
from pathlib import Path

import pytest

from lora_np.classroom.agreement import tags
from lora_np.classroom.book_links import pattern
from lora_np.classroom.notebooks import FOLDED, read_notebook
from lora_np.classroom.sets import read_sets

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONGEST = 25  # lines of a visible cell
LARGEST = 1_000_000  # bytes of a picture or an animation
DRAWING = re.compile(r"\b(plt|axes|ax|figure|fig)\b *[.\[=,]")
TYPESET = re.compile(r"\$\$.+?\$\$|\$[^$\n]+?\$", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
SYMBOLS = re.compile(r"[ᵀ√ΣΔσα∂‖⊙∞²³·≤≥₀-₉ᵢⱼ]")
DETAILS = re.compile(r"<details><summary>.+?</summary>\n\n.+?\n\n *</details>", re.DOTALL)


@pytest.fixture(scope="module", params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    return read_notebook(request.param)


def cells(lesson, kind):
    return [cell for cell in lesson.cells if cell.cell_type == kind]


def test_visible_code_is_short_and_cells_are_folded_as_their_tags_say(lesson):
    """And visible code does not draw; pictures are small."""
    for cell in cells(lesson, "code"):
        assert "assert " not in cell.source, cell.source  # `claim` says why, and goes on
        if "hide-input" not in tags(cell):
            assert cell.source.count("\n") < LONGEST and not DRAWING.search(cell.source), cell.source
        assert not set(FOLDED) <= set(tags(cell)), cell.source  # JupyterLab would show nothing to open
        assert cell.metadata.get("jupyter", {}) == {name: True for tag, name in FOLDED.items() if tag in tags(cell)}
        for output in cell.outputs:
            assert len(output.get("data", {}).get("image/png", "")) * 3 / 4 < LARGEST


def test_pictures_are_described_in_words(lesson):
    """Under the key that MyST-NB reads."""
    for cell in cells(lesson, "code"):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert len(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")) > 20, cell.id


def test_experiments_are_named():
    """Their numbers change when one is added."""
    for path in [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("lora_np/classroom/exercises/*/*.py")]:
        assert not re.search(r"experiments? \d", path.read_text("utf-8"), re.IGNORECASE), path


def test_papers_are_in_the_list(lesson):
    listed = pattern(re.findall(r"\*\*(.+?)\*\*", (ROOT / "notebooks" / "PAPERS.md").read_text("utf-8")))
    for cell in cells(lesson, "markdown"):
        assert not re.search(r"[A-Z]\w+(\s+et\s+al\.)?\s+(19|20)\d\d\b", listed.sub("", cell.source)), cell.source


def test_formulas_are_typeset(lesson):
    for cell in cells(lesson, "markdown"):
        plain = TYPESET.sub("", re.sub(r"\b\d\d · ", "", cell.source))  # of links to lessons, "02 · Rank and SVD"
        assert not SYMBOLS.search(CODE.sub("", plain)), cell.source
        assert not re.search(r"`[^`\n]*[ᵀ√Σ∂‖⊙₀-₉][^`\n]*`", plain), cell.source
        assert not re.search(r"\n\n    (?! *</?details|[-\d])\S", CODE.sub("", cell.source)), cell.source


def test_questions_have_answers_that_come_on_asking(lesson):
    text = "\n\n".join(cell.source for cell in lesson.cells)
    for question in re.split(r"\*\*Predict\.?\*\*", text)[1:]:  # in the form that `guesses.js` expects
        answers = re.search(rf"\n\n((?:{DETAILS.pattern}\n+){{2,}})", question + "\n", re.DOTALL)
        first_words = re.findall(r"</summary>\s+(\w*)", answers[1])
        assert {word == "Right" for word in first_words} == {True, False}, question
    for turn in text.split("**Your turn.**")[1:]:
        assert "<details><summary>A solution</summary>" in turn.partition("\n## ")[0], turn[:200]
    tries = re.split(r"\n(?=\d\. )", text.partition("\n## Try")[2].partition("\n## ")[0])[1:]
    assert tries and all(DETAILS.search(one) for one in tries)


def test_the_reader_writes_and_predicts(lesson, request):
    text = "\n\n".join(cell.source for cell in lesson.cells)
    assert "**Predict" in text and "**Your turn.**" in text
    number = int(request.node.callspec.id[:2])
    assert number not in [int(name[:2]) for name in read_sets()] or "\ncheck." in text  # with the exercises' own checks


def test_optional_sections_come_last_and_are_folded(lesson):
    """Under the key that JupyterLab reads; the book's script reads the heading."""
    headings = [cell for cell in cells(lesson, "markdown") if cell.source.startswith("## ")]
    optional = [cell.source.startswith("## Optional: ") for cell in headings]
    assert optional == sorted(optional)
    assert optional == [cell.metadata.get("jp-MarkdownHeadingCollapsed", False) for cell in headings]
    text = "\n\n".join(cell.source for cell in lesson.cells)
    assert any(optional) == ("That is all you need to go on." in text)
    assert sum(optional) == text.count("\n## Optional: ")
