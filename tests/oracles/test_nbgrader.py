"""One exercise set through the real nbgrader: made, submitted by sixteen students, graded, given back. The marks are
read from its gradebook. (`pip install ".[classroom]"`)"""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")
nbformat = pytest.importorskip("nbformat")

from lora_np.classroom.grading import grade  # noqa: E402
from lora_np.classroom.marks import collect  # noqa: E402
from lora_np.classroom.release import mark, notebook_of, release  # noqa: E402
from lora_np.classroom.sets import read_sets  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SET = "07_lora_layer"
POINTS = {"merge": 2.0, "lora_forward": 3.0, "lora_init": 3.0, "lora_backward": 6.0}
WRONG = """def lora_backward(dy, x, W, A, B, s):
    du = s * dy @ B
    return dy @ W, du.T @ x, s * dy.T @ (x @ A.T)
"""
WARNING = """def merge(W, A, B, s):
    np.log(-np.ones(3))
    return W + s * B @ A
"""


def nbgrader(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "nbgrader", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course with a term of sixteen students, graded and given back; their files have names of their own."""
    folder, inbox = tmp_path_factory.mktemp("course"), tmp_path_factory.mktemp("inbox")
    release(folder, nbgrader=True)
    nbgrader(folder, "generate_assignment", SET)
    source = nbformat.read(folder / "source" / SET / f"{SET}.ipynb", as_version=4)
    handed_out = nbformat.read(folder / "release" / SET / f"{SET}.ipynb", as_version=4)
    solved = {mark(c)["grade_id"]: c.source for c in source.cells if mark(c).get("solution")}
    term = {
        "solver": solved,
        "blank": {},
        "slip": solved | {"lora_backward": WRONG},
        "warner": {"merge": WARNING},
        "deleter": solved,
        "cutter": solved,
        "copier": solved,
        "raiser": solved | {"lora_init": "def lora_init(n_out, n_in, r, rng):\n    return 1 / 0"},
        "typist": solved | {"lora_forward": "def lora_forward(x, W, b, A, B, s) return x"},
        "renamer": solved | {"merge": "def merged(W, A, B, s):\n    return W + s * B @ A"},
    }
    names = list(solved)
    for number in range(16 - len(term)):  # each with another choice of the functions
        term[f"student{number}"] = {name: solved[name] for k, name in enumerate(names) if number + 1 & 1 << k}
    for student, changed in term.items():
        made = copy.deepcopy(handed_out)
        for cell in made.cells:
            cell.source = changed.get(mark(cell).get("grade_id"), cell.source)
        if student == "deleter":
            made.cells = [cell for cell in made.cells if mark(cell).get("grade_id") != "check_merge"]
        if student == "cutter":
            cut = "setup", "merge", "words_07_lora_layer"
            made.cells = [cell for cell in made.cells if mark(cell).get("grade_id") not in cut]
        if student == "copier":
            copies = copy.deepcopy(made.cells)
            for cell in copies:
                cell.id = f"copy-of-{cell.id}"
            made.cells = [cell for pair in zip(made.cells, copies) for cell in pair]
        path = inbox / student / f"my homework of {student}.ipynb"
        path.parent.mkdir()
        nbformat.write(made, path)
    (inbox / "breaker").mkdir()
    (inbox / "breaker" / "05.ipynb").write_text("no notebook")
    collect(folder, sorted(map(str, inbox.glob("*/*.ipynb"))))
    nbgrader(folder, "autograde", SET)
    nbgrader(folder, "generate_feedback", SET)
    return folder, inbox


def marks(course, student):
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course[0] / 'gradebook.db'}") as gradebook:
        notebook = gradebook.find_submission_notebook(SET, SET, student)
        return {g.name.removeprefix("check_"): g.auto_score for g in notebook.grades if g.cell.cell_type == "code"}


def test_the_gradebook_has_the_marks(course):
    assert marks(course, "solver") == POINTS
    assert marks(course, "deleter") == POINTS  # of a cell that grades; it is put back
    assert marks(course, "cutter") == {**POINTS, "merge": 0.0} and marks(course, "copier") == POINTS
    assert marks(course, "blank") == dict.fromkeys(POINTS, 0.0)
    assert marks(course, "slip") == {**POINTS, "lora_backward": 4.0}  # dA and dB of three
    # NumPy's warning costs nothing.
    assert marks(course, "warner") == {**dict.fromkeys(POINTS, 0.0), "merge": 2.0}


def test_the_students_version_is_ours(course):
    """nbgrader cuts the same solutions out."""
    handed_out = nbformat.read(course[0] / "release" / SET / f"{SET}.ipynb", as_version=4)
    ours = notebook_of(read_sets()[SET], "student")
    assert [c.source for c in handed_out.cells] == [c.source for c in ours.cells]
    for key in ("deletable", "editable"):
        assert [c.metadata.get(key) for c in handed_out.cells] == [c.metadata.get(key) for c in ours.cells]


def test_the_feedback_names_the_mistake_and_shows_no_solution(course):
    page = (course[0] / "feedback" / "slip" / SET / f"{SET}.html").read_text("utf-8")
    assert "dx lacks the term du @ A" in page and "BEGIN HIDDEN" not in page
    blank = (course[0] / "feedback" / "blank" / SET / f"{SET}.html").read_text("utf-8")
    assert "it is not written yet" in blank
    for text in ("s * dy.T @ u", "dB = s dy"):  # of the solution and of the formula
        assert text not in page and text not in blank


def test_our_own_grading_gives_the_same_marks(course):
    """To all sixteen, from the files as they were handed in; the seventeenth is no notebook."""
    paths = sorted(course[1].glob("*/*.ipynb"))
    assert len(paths) == 17
    for path in paths:
        if path.parent.name == "breaker":
            with pytest.raises(ValueError, match="not a Jupyter notebook"):
                grade(path)
            continue
        found = {one.item: one.score for one in grade(path).marks if not one.by_hand}
        assert found == marks(course, path.parent.name), path.parent.name
