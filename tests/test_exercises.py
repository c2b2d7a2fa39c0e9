"""Every graded item of every exercise set: the worked solution reaches all points, a blank none, right solutions in
another style all, and a wrong one loses that item alone and is told what it looks like.

`tests/attempts/` holds the attempts, by sets. Each stands in the place of the item's solution in the source notebook,
whose cells are then run in order, in this process.
"""

import contextlib
import functools
import io
import re
from collections import Counter
from pathlib import Path

import pytest

from lora_np.classroom import check
from lora_np.classroom.items import ITEMS, SETS
from lora_np.classroom.release import for_students, mark

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "notebooks" / "exercises"
ATTEMPTS = Path(__file__).parent / "attempts"
HEADER = re.compile(r"^# == (\w+): (right|wrong), (.+)$", re.MULTILINE)


def attempts_of(name):
    """(item, "right" or "wrong", words, code) of a set's file of attempts, in order."""
    text = (ATTEMPTS / f"{name}.py").read_text("utf-8")
    _, *pieces = HEADER.split(text)
    return list(zip(*(pieces[i::4] for i in range(4))))


@functools.cache  # read once for all attempts; none of them changes it
def source_of(name):
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(SOURCES / f"{name}.ipynb", as_version=4)


def run(notebook, monkeypatch, replaced=None):
    """Run a notebook's cells in order, going on after one that raises; what was scored, and what was printed."""
    monkeypatch.setattr(check, "_RECORD", {})
    printed, space = io.StringIO(), {"__name__": "__main__"}
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()) as errors:
        for cell in notebook.cells:
            if cell.cell_type != "code":
                continue
            source = (replaced or {}).get(mark(cell).get("grade_id"), cell.source)
            with contextlib.suppress(Exception):
                exec(compile(source, "<cell>", "exec"), space)
    assert errors.getvalue() == ""
    return check.record(), printed.getvalue()


def auto_graded(notebook):
    """Item -> points, of the cells that a program grades."""
    cells = [cell for cell in notebook.cells if mark(cell).get("grade") and cell.cell_type == "code"]
    return {mark(cell)["grade_id"].removeprefix("check_"): mark(cell)["points"] for cell in cells}


def test_the_sets_and_their_files_belong_together():
    assert [path.stem for path in sorted(SOURCES.glob("*.ipynb"))] == sorted(SETS)
    assert [path.stem for path in sorted(ATTEMPTS.glob("*.py"))] == sorted(SETS)
    assert sum(len(module.ITEMS) for module in SETS.values()) == len(ITEMS), "two items share a name"


@pytest.mark.parametrize("name", SETS)
def test_a_source_is_made_as_graders_expect_it(name):
    notebook = source_of(name)
    points = auto_graded(notebook)
    assert list(points) == [item.name for item in SETS[name].ITEMS]
    kinds = Counter((item, kind) for item, kind, *_ in attempts_of(name))
    assert {item for item, _ in kinds} == {*points}
    assert all(kinds[item, "right"] >= 2 and kinds[item, "wrong"] >= 4 for item in points), kinds
    ids = [mark(cell)["grade_id"] for cell in notebook.cells if mark(cell)]
    assert len(ids) == len(set(ids)) and {*points} <= {*ids}
    for cell in notebook.cells:
        if mark(cell):
            assert mark(cell)["schema_version"] == 3 and mark(cell)["cell_type"] == cell.cell_type
            assert mark(cell)["locked"] is not mark(cell)["solution"]
        if mark(cell).get("grade") and cell.cell_type == "code":
            item = mark(cell)["grade_id"].removeprefix("check_")
            assert cell.source == f"check.{item}({item}, points={points[item]})"
    graded = [(cell.cell_type, mark(cell)["points"]) for cell in notebook.cells if mark(cell).get("grade")]
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    headings = re.findall(r"^## .* \((\d+) points?\)$", "\n".join(texts), re.MULTILINE)
    assert list(map(int, headings)) == [points for _, points in graded]
    by_hand = sum(points for kind, points in graded if kind == "markdown")
    assert f"| **Points** | {sum(points.values())}, and {by_hand} for an answer in words |" in texts[0]


@pytest.mark.parametrize("name", SETS)
def test_the_worked_solution_has_all_points_and_the_blank_none(name, monkeypatch):
    notebook = source_of(name)
    points = auto_graded(notebook)
    record, _ = run(notebook, monkeypatch)
    assert {item: entry["score"] for item, entry in record.items()} == points
    assert all(type(entry["score"]) is float for entry in record.values())
    blank = for_students(notebook)
    record, _ = run(blank, monkeypatch)
    assert {item: record.get(item, {"score": 0.0})["score"] for item in points} == dict.fromkeys(points, 0.0)
    for item in points:  # one alone
        stub = next(cell.source for cell in blank.cells if mark(cell).get("grade_id") == item)
        record, _ = run(notebook, monkeypatch, {item: stub})
        assert {other: entry["score"] for other, entry in record.items()} == {**points, item: 0.0}


EVERY = [(name, *attempt) for name in SETS for attempt in attempts_of(name)]


@pytest.mark.slow
@pytest.mark.parametrize("name, item, kind, words, code", EVERY, ids=[f"{a[1]}-{a[3][:40]}" for a in EVERY])
def test_an_attempt(name, item, kind, words, code, monkeypatch):
    notebook = source_of(name)
    points = auto_graded(notebook)
    record, printed = run(notebook, monkeypatch, {item: code})
    scores = {other: entry["score"] for other, entry in record.items()}
    if kind == "right":
        assert scores == points, printed
        return
    assert {**scores, item: points[item]} == points, "it has cost another item, too"
    assert scores[item] < points[item]
    outputs = record[item]["outputs"].values()
    told = [record[item]["failed"] or "", *(s for o in outputs for s in (o["wrong"] or "", *o["looks_like"]))]
    assert any(words in sentence for sentence in told), told
