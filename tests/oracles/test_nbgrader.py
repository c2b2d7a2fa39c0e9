"""One exercise set through the real nbgrader: made, submitted by five students, graded, given back; the marks are read
from its gradebook. (`pip install ".[classroom]"`)"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")
nbformat = pytest.importorskip("nbformat")

from lora_np.classroom.release import for_students, mark, release  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SET = "05_lora_layer"
POINTS = {"check_merge": 2.0, "check_lora_forward": 3.0, "check_lora_init": 3.0, "check_lora_backward": 6.0}
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
    """A course in which five students have handed in, graded and given back."""
    folder = tmp_path_factory.mktemp("course")
    release(folder, nbgrader=True)
    nbgrader(folder, "generate_assignment", SET)
    source = nbformat.read(folder / "source" / SET / f"{SET}.ipynb", as_version=4)
    handed_out = nbformat.read(folder / "release" / SET / f"{SET}.ipynb", as_version=4)
    solved = {mark(c)["grade_id"]: c.source for c in source.cells if mark(c).get("solution")}
    for student, changed in {
        "solver": solved,
        "blank": {},
        "slip": solved | {"lora_backward": WRONG},
        "warner": {"merge": WARNING},
        "deleter": solved,
    }.items():
        made = handed_out.copy()
        made.cells = [cell.copy() for cell in handed_out.cells]
        for cell in made.cells:
            cell.source = changed.get(mark(cell).get("grade_id"), cell.source)
        if student == "deleter":
            made.cells = [cell for cell in made.cells if mark(cell).get("grade_id") != "check_merge"]
        path = folder / "submitted" / student / SET / f"{SET}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(made, path)
    nbgrader(folder, "autograde", SET)
    nbgrader(folder, "generate_feedback", SET)
    return folder


def marks(course, student):
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        notebook = gradebook.find_submission_notebook(SET, SET, student)
        return {g.name: g.auto_score for g in notebook.grades if g.cell.cell_type == "code"}


def test_the_gradebook_has_the_marks(course):
    assert marks(course, "solver") == POINTS
    assert marks(course, "deleter") == POINTS  # of a cell that grades; it is put back
    assert marks(course, "blank") == dict.fromkeys(POINTS, 0.0)
    assert marks(course, "slip") == {**POINTS, "check_lora_backward": 4.0}  # dA and dB of three
    # NumPy's warning costs nothing.
    assert marks(course, "warner") == {**dict.fromkeys(POINTS, 0.0), "check_merge": 2.0}


def test_the_students_version_is_ours(course):
    """nbgrader cuts the same solutions out as `for_students` does."""
    source = nbformat.read(course / "source" / SET / f"{SET}.ipynb", as_version=4)
    handed_out = nbformat.read(course / "release" / SET / f"{SET}.ipynb", as_version=4)
    ours = for_students(source)
    assert [c.source for c in handed_out.cells] == [c.source for c in ours.cells]
    for key in ("deletable", "editable"):
        assert [c.metadata.get(key) for c in handed_out.cells] == [c.metadata.get(key) for c in ours.cells]


def test_the_feedback_names_the_mistake_and_shows_no_solution(course):
    page = (course / "feedback" / "slip" / SET / f"{SET}.html").read_text("utf-8")
    assert "dx lacks the adapter" in page and "BEGIN HIDDEN" not in page
    blank = (course / "feedback" / "blank" / SET / f"{SET}.html").read_text("utf-8")
    assert "it is not written yet" in blank
    for text in ("s * dy.T @ u", "dB = s dy"):  # of the solution and of the formula
        assert text not in page and text not in blank


def test_our_own_grading_gives_the_same_marks(course):
    students = ("solver", "blank", "slip", "warner", "deleter")
    files = [str(course / "submitted" / student / SET / f"{SET}.ipynb") for student in students]
    command = [sys.executable, "-m", "lora_np", "classroom", "grade", *files, "--json", str(course / "marks.json")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    graded = json.loads((course / "marks.json").read_text("utf-8"))
    for student, file in zip(students, files):
        found = {item: entry["score"] for item, entry in graded[file]["items"].items() if not entry["by_hand"]}
        assert found == marks(course, student)
