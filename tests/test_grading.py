"""Exercises handed out and handed in: the notebooks, the grading, the sandbox, and what a teacher gets of a class."""

import copy
import csv
import io
import json
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from lora_np.classroom import notebooks, runner, submissions
from lora_np.classroom.examine import Failed
from lora_np.classroom.grading import Graded, Mark, grade, steps_of
from lora_np.classroom.marks import collect, report, student_of, write_class
from lora_np.classroom.release import mark, notebook_of
from lora_np.classroom.sets import read_sets
from lora_np.cli import main

from .test_exercises import attempts

nbformat = pytest.importorskip("nbformat")
SET = "07_lora_layer"
OF = read_sets()[SET]
POINTS = {exercise.name: exercise.points for exercise in OF.exercises}


def handed_in(form="solutions", of=OF, **changed):
    """A notebook of a set, 07 by default, with other sources in some cells."""
    notebook = notebook_of(of, form)
    for cell in notebook.cells:
        cell.source = changed.get(mark(cell).get("grade_id"), cell.source)
    return notebook


def hand_in(path, notebook):
    path.parent.mkdir(parents=True, exist_ok=True)
    notebooks.write_notebook(path, notebook)
    return path


def graded(folder, notebook, **settings):
    return grade(hand_in(folder / "a.ipynb", notebook), **settings)


def scores(graded):
    return {one.item: one.score for one in graded.marks if not one.by_hand}


def test_notebooks_are_made_as_graders_expect_them():
    for name, of in read_sets().items():
        student, solved, course = (notebook_of(of, form) for form in ("student", "solutions", "nbgrader"))
        ids = [mark(cell)["grade_id"] for cell in student.cells if mark(cell)]
        assert len(ids) == len(set(ids)) and ids[0] == "setup" and ids[-1] == "summary"
        for cell in student.cells:
            if mark(cell):
                assert mark(cell)["locked"] is not mark(cell)["solution"] and cell.metadata["deletable"] is False
        texts = {form: "\n".join(c.source for c in n.cells) for form, n in zip("sok", (student, solved, course))}
        assert texts["s"].count("raise NotImplementedError()") >= len(of.exercises) and "SOLUTION" not in texts["s"]
        assert "YOUR" not in texts["o"] and "SOLUTION" not in texts["o"]
        assert texts["k"].count("### BEGIN SOLUTION") == texts["k"].count("### END SOLUTION") > len(of.exercises)
        assert f"| **Points** | {of.points}, and {of.words} for a written answer |" in texts["s"]
        assert texts["s"].startswith(f"# Exercises {name[:2]} · {of.title}")


def test_the_release(tmp_path, run, fails, monkeypatch):
    names = [SET, "02_rank_and_svd"]
    monkeypatch.setattr("lora_np.classroom.release.read_sets", lambda: {name: read_sets()[name] for name in names})
    run("classroom", "release", tmp_path / "out")
    for folder in ("student", "solutions"):
        assert {path.stem for path in (tmp_path / "out" / folder).glob("*.ipynb")} == set(names)
    assert "pip install PATH_OF_THE_CLONE" in (tmp_path / "out" / "student" / "README.md").read_text("utf-8")
    fails("classroom", "release", tmp_path / "out", says=["already exists"])
    run("classroom", "release", tmp_path / "out", "--force")
    said = run("classroom", "release", tmp_path / "course", "--nbgrader")
    assert "nbgrader autograde 02_rank_and_svd" in said and (tmp_path / "course" / "nbgrader_config.py").is_file()


NEEDS_BUBBLEWRAP = pytest.mark.skipif(not shutil.which("bwrap"), reason="needs bubblewrap")


def sandboxed(test):
    """A test that needs bubblewrap; slow, because `.ci/run` installs it for the slow ones."""
    return pytest.mark.slow(NEEDS_BUBBLEWRAP(test))


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", [False, pytest.param(True, marks=NEEDS_BUBBLEWRAP)])
@pytest.mark.parametrize("name", read_sets())
def test_the_solutions_get_all_points_and_blanks_none(name, sandbox, tmp_path):
    """Also for functions that are given functions and generators, and where memory is measured from outside."""
    of = read_sets()[name]
    solved, blank = (graded(tmp_path, notebook_of(of, form), sandbox=sandbox) for form in ("solutions", "student"))
    assert solved.exercise == of.name and solved.score == of.points == solved.points, scores(solved)
    assert blank.score == 0.0 and all("it is not written yet" in m.said for m in blank.marks if not m.by_hand)


def test_cells_that_grade_are_ours_wherever_they_are(tmp_path):
    """A renamed notebook, deleted and copied checks, and checks that say something else."""
    notebook = handed_in(merge="print('mine')\ndef merge(W, A, B, s):\n    print('x')\n    return W + s * B @ A")
    notebook.cells = [cell for cell in notebook.cells if mark(cell).get("grade_id") not in ("setup", "check_merge")]
    copied = copy.deepcopy(next(c for c in notebook.cells if mark(c).get("grade_id") == "check_lora_backward"))
    copied.source, copied.id = "6.0", "copied"
    notebook.cells.append(copied)
    assert scores(graded(tmp_path, notebook)) == POINTS
    assert [name for kind, name, _ in steps_of(notebook, OF) if kind == "call"][-1] == "merge"
    sly = handed_in("student")
    for cell in sly.cells:
        if mark(cell).get("grade") and cell.cell_type == "code":
            cell.source = "100.0"
    assert not any(scores(graded(tmp_path, sly)).values())


@pytest.mark.slow
def test_what_goes_wrong_costs_itself_alone(tmp_path, monkeypatch):
    """Loops, the end of Python, and answers without end, of which the grader keeps no more than one."""
    monkeypatch.setattr(submissions, "STEP_SECONDS", 3)
    of = read_sets()["02_rank_and_svd"]
    tried = {name: (words, cell) for name, _, words, cell in attempts("submissions/02*.py")}
    wrong = {name: cell for name, (_, cell) in tried.items()}
    threads, marks = threading.active_count(), graded(tmp_path, handed_in(of=of, **wrong))
    said = {one.item: one.said for one in marks.marks}
    assert scores(marks) == {exercise.name: exercise.points * (exercise.name not in wrong) for exercise in of.exercises}
    assert all(words in said[name] for name, (words, _) in tried.items())
    assert threading.active_count() == threads


DAMAGED = [  # fields of each cell, where None takes one out; what `grade` and `collect` say
    ({"metadata": {"nbgrader": 5}}, "contains no graded cells"),
    ({"metadata": {"nbgrader": {"grade_id": ["check_merge"]}}}, "contains no graded cells"),
    ({"source": 5}, "is not a Jupyter notebook"),
    ({"source": None}, "is not a Jupyter notebook"),
    ({"cell_type": None}, "is not a Jupyter notebook"),
    ({"outputs": None}, "is not a Jupyter notebook"),
    ({"outputs": [{}]}, "is not a Jupyter notebook"),
]


@pytest.mark.parametrize("fields, says", DAMAGED)
def test_damaged_notebooks(fields, says, tmp_path, capsys):
    odd = json.loads(nbformat.writes(handed_in()))
    for cell in odd["cells"]:
        for name in fields:
            if fields[name] is None:
                cell.pop(name, None)
            elif name in cell:
                cell[name] = fields[name]
    path = tmp_path / "odd.ipynb"
    path.write_text(json.dumps(odd))
    assert main(["classroom", "grade", str(path)]) == 1
    assert f"not gradable   notebook: {path} {says}" in capsys.readouterr().out
    assert main(["classroom", "collect", str(tmp_path / "course"), str(path)]) == 1
    assert f"not collected: notebook: {path} {says}" in capsys.readouterr().out


def test_files_that_are_no_notebooks_or_no_submissions(tmp_path, capsys):
    text, other, good = (tmp_path / f"{name}.ipynb" for name in ("text", "other", "good"))
    text.write_text("print(1)")
    hand_in(other, nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]))
    files = [str(file) for file in (text, other, tmp_path / "gone.ipynb", hand_in(good, handed_in()))]
    assert main(["classroom", "grade", *files, "--json", str(tmp_path / "marks.json")]) == 1
    marks = json.loads((tmp_path / "marks.json").read_text("utf-8"))
    assert [marks[file].get("score") for file in files] == [None, None, None, 14.0]
    said = capsys.readouterr().out
    for words in ("is not a Jupyter notebook", "contains no graded cells", "there is no file"):
        assert words in said


FORGED = {way: cell for *_, way, cell in attempts("submissions/07*.py")}  # to a mark without a right answer


@sandboxed
@pytest.mark.parametrize("way", FORGED)
def test_a_mark_cannot_be_forged(way, tmp_path, monkeypatch):
    monkeypatch.setattr(submissions, "STEP_SECONDS", 20)
    of = scores(graded(tmp_path, handed_in(merge=FORGED[way]), sandbox=True))
    assert of["merge"] == 0.0
    if way.startswith("costly: "):  # it costs what comes after it
        assert sum(of.values()) < OF.points - POINTS["merge"]
    else:
        assert of == POINTS | {"merge": 0.0}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ipynb"]


def test_every_copy_of_the_package_is_hidden(tmp_path):
    """An installed one, a clone with its notebooks, a renamed one, and the file that it was installed from."""
    copies = "site-packages/lora_np", "clone/lora_np", "clone/notebooks", "renamed", "lora_np-0.2.0-py3-none-any.whl"
    for path in ("site-packages/lora_np", "clone/lora_np", "renamed"):
        (tmp_path / path / "classroom" / "exercises").mkdir(parents=True)
    (tmp_path / "clone" / "notebooks").mkdir()
    for path in ("clone/pyproject.toml", "lora_np-0.2.0-py3-none-any.whl", "numpy.whl"):
        (tmp_path / path).touch()
    assert {*submissions.copies_in((str(tmp_path),))} == {tmp_path / path for path in copies}


LIMITED = {
    "memory": ("np.ones(10**9)", "MemoryError"),
    "devices": ("open('/dev/x', 'wb').write(bytes(10**6))", "Read-only"),
    "shared memory": ("open('/dev/shm/x', 'wb').write(bytes(10**6))", "Read-only"),
    "the root": ("open('/x', 'wb').write(bytes(10**6))", "Read-only"),
    "namespaces": (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "if c.unshare(0x10000000): raise OSError(ctypes.get_errno(), 'denied')",
        "denied",
    ),
    "many files": ("for i in range(9): open(f'/tmp/{i}', 'wb').write(bytes(10**7))", "No space left"),
    "files": ("open('/tmp/x', 'wb').write(bytes(10**8))", "File too large"),
    "others' files": (f"open({__file__!r})", "No such file"),
    "processes": ("import os; os.fork()", "not permitted"),
    "the network": ("import socket; socket.create_connection(('10.0.0.1', 80), 2)", "unreachable"),
}


@sandboxed
@pytest.mark.parametrize("what", LIMITED)
def test_the_sandbox_limits(what, tmp_path):
    code, said = LIMITED[what]
    with submissions.Process(tmp_path, sandbox=True) as process:
        assert said in process.ask({"run": code})["error"]
        assert process.ask({"run": "import threading; t = threading.Thread(target=print); t.start()"})["error"] is None


def of_spectrum(tmp_path, code, sandbox):
    cell = f"import tracemalloc\ndef product_singular_values(B, A):\n    {code}"
    marks = graded(
        tmp_path, handed_in(of=read_sets()["02_rank_and_svd"], product_singular_values=cell), sandbox=sandbox
    )
    return next(one for one in marks.marks if one.item == "product_singular_values")


FORMED = "return np.linalg.svd(B @ A, compute_uv=False)[:B.shape[1]]"


@sandboxed
def test_the_sandbox_measures_memory(tmp_path):
    for code in (FORMED, f"tracemalloc.get_traced_memory = lambda: (0, 0); {FORMED}"):
        mark = of_spectrum(tmp_path, code, True)
        assert mark.score == 0.0 and "it forms B A" in mark.said


def test_the_large_call_has_to_be_right(tmp_path):
    for wrong, said in (("return 0", "sigma is incorrect"), ("raise ValueError('no')", "it raises ValueError: no")):
        mark = of_spectrum(tmp_path, f"if len(B) > 1000: {wrong}\n    {FORMED}", False)
        assert mark.score == 0.0 and f"with large inputs, {said}" in mark.said


def told(tmp_path, cell, inputs):
    """What the grader is told of a call of the function f in a cell."""
    with submissions.Process(tmp_path) as process:
        process.ask({"run": cell})
        try:
            return process.call(SimpleNamespace(name="f"), inputs)
        except (submissions.Stopped, Failed) as error:
            return str(error)


def test_a_call_has_limits_of_its_own(tmp_path, monkeypatch):
    """The time of the whole call, threads, and what is asked of the grading process."""
    monkeypatch.setattr(submissions, "STEP_SECONDS", 2)
    given = {"g": len}
    assert "stopped after 2 s" in told(tmp_path, "def f(g):\n    while True: g([1])", given)
    assert "stopped after 2 s" in told(
        tmp_path, "def f(g, x):\n    import time; time.sleep(9)", given | {"x": np.ones(10**5)}
    )
    threads = "[threading.Thread(target=time.sleep, args=(9,)).start() for _ in range(99)]; time.sleep(9)"
    assert "more than 64 threads" in told(tmp_path, f"import threading, time\ndef f(g):\n    {threads}", given)
    assert "arguments are too large" in told(tmp_path, "def f(g):\n    return g(np.ones(10**5))", given)
    assert told(tmp_path, "def f(g):\n    return g(np.ones(10**3))", given)[0] == 1000


ODD = {  # an answer that must not cost the notebook -> what is said of it
    "2**5000": "its magnitude is above 1e308",
    "-(2**50000)": "it is a number with more than 3,000 digits",
    "__import__('fractions').Fraction(10**500, 3)": "its magnitude is above 1e308",
    "[2**5000, 1]": "",
    "(_ for _ in ()).throw(ValueError('x' * 30_000_000))": "it raises ValueError: xxx",
    "W.clear() if hasattr(W, 'clear') else {}": "",
    "np.array([], object)": "",
    "A @ B.T": "the inner lengths of a product A @ B differ: A has",
    "(W > 0) - (W < 0)": "- is not defined for arrays of bools",
    "W + s * A": "cannot be combined elementwise",
}


@pytest.mark.slow
@pytest.mark.parametrize("answer", ODD)
def test_an_odd_answer_costs_only_itself(answer, tmp_path):
    marks = graded(tmp_path, handed_in(merge=f"def merge(W, A, B, s):\n    return {answer}"))
    assert scores(marks) == POINTS | {"merge": 0.0}
    [said] = [one.said for one in marks.marks if one.item == "merge"]
    assert ODD[answer] in said and len(said) < 2000


def test_a_grader_reads_any_message(tmp_path, monkeypatch):
    """From a process that a student's code has changed."""
    for changed in ({"inputs": {"dict": []}}, {"inputs": 5}, {"returned": {}}, {"peak": None}, {"error": ["x"] * 999}):
        monkeypatch.setattr(
            submissions.Process,
            "ask",
            lambda self, message, *given, changed=changed: (
                {"error": None} if "run" in message else {"returned": 1, "inputs": {"dict": []}, "peak": 0} | changed
            ),
        )
        marks = graded(tmp_path, handed_in())
        assert marks.score == 0.0 and all(len(one.said) < 2000 for one in marks.marks)


ABOVE_AND_BELOW = """{}
def merge(W, A, B, s):
    return (W
            + s * B @ A % 1e300)
{}"""
IPYTHON = (
    "display(np.eye(2))",
    "get_ipython().run_line_magic('matplotlib', 'inline')",
    "merge?",
    "np.linalg.svd??",
    "!ls",
    "%timeit -o 1 + 1",
    "times = %timeit -o 1 + 1",
    "files = !ls",
    "import asyncio\nawait asyncio.sleep(0)",
    "%%time",
)


@pytest.mark.parametrize("line", IPYTHON)
def test_what_only_ipython_understands_costs_nothing(line):
    for above, below in ((line, ""), ("", line)):
        if not (line.startswith("%%") and below):
            space = {"display": runner.Ignored(), "get_ipython": runner.Ignored(), "np": np}
            assert runner.run_cell(ABOVE_AND_BELOW.format(above, below).strip(), space) is None
            assert np.array_equal(space["merge"](*np.ones((3, 2, 2)), 3.0), np.full((2, 2), 7.0))
    assert runner.run_cell("%%bash\nls -l", {}) is None


def test_text_of_students_is_no_formula_and_no_heading(tmp_path):
    words = "I think\r## Ben\n\n# 4 of 4 points"
    notebook = hand_in(tmp_path / "class" / "=HYPERLINK(1)" / "+cmd|x.ipynb", handed_in(words_07_lora_layer=words))
    hand_in(tmp_path / "class" / "-Ben" / "a.ipynb", handed_in())
    outcomes = {str(path): grade(path) for path in (notebook, tmp_path / "class" / "-Ben" / "a.ipynb")}
    write_class(tmp_path / "out", outcomes)
    for name in ("marks.csv", "words.csv"):
        assert [row["student"] for row in rows(tmp_path / "out" / name)] == ["'-Ben", "'=HYPERLINK(1)"]
    text = (tmp_path / "out" / "words.md").read_text("utf-8")
    assert "\n> ## Ben\n" in text and "\n## Ben" not in text and "\n# 4" not in text
    filled = (
        (tmp_path / "out" / "words.csv")
        .read_text("utf-8")
        .replace("(1),,words_07_lora_layer,4,", "(1),,words_07_lora_layer,4,2")
    )
    (tmp_path / "out" / "words.csv").write_text(filled, encoding="utf-8")
    write_class(tmp_path / "out", outcomes)
    assert [row["score"] for row in rows(tmp_path / "out" / "marks.csv")] == ["14", "16"]


def test_no_sandbox_no_grading(tmp_path, monkeypatch, fails):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    fails("classroom", "grade", hand_in(tmp_path / "a.ipynb", handed_in()), "--sandbox", says=["bubblewrap"])


def rows(path, delimiter=","):
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig")), delimiter=delimiter))


STUDENTS = {
    "moodle/Ada Lovelace_4711_assignsubmission_file/05.ipynb": ("4711", "Ada Lovelace"),
    "canvas/lovelaceada_LATE_815_99_05_lora_layer.ipynb": ("815", "lovelaceada"),
    "own/ada/05.ipynb": ("ada", ""),
    "ada.ipynb": ("ada", ""),
}


@pytest.mark.parametrize("path", STUDENTS)
def test_students_are_known_by_folder_or_file(path, tmp_path):
    other = path.replace("Ada", "Ben").replace("ada", "ben").replace("4711", "1").replace("815", "2")
    assert student_of(tmp_path / path, [tmp_path / path, tmp_path / other]) == STUDENTS[path]


@pytest.fixture(scope="module")
def class_of_three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class")
    ada, ben, cy = (folder / f"{name}_assignsubmission_file" for name in ("Ada L_11", "Ben K_12", "Cy M_13"))
    wrong = {"merge": "def merge(W, A, B, s):\n    return W + B @ A", "words_07_lora_layer": "Because."}
    hand_in(ada / "05.ipynb", handed_in())
    hand_in(ben / "05 (1).ipynb", handed_in(**wrong))
    cy.mkdir()
    (cy / "05.ipynb").write_text("no notebook")
    return folder


def test_the_files_of_a_class(class_of_three, tmp_path, fails):
    out = tmp_path / "out"
    command = ["classroom", "grade", str(class_of_three), "--out", str(out)]

    def read(*path):
        return out.joinpath(*path).read_text("utf-8")

    assert main(command) == 1
    ada, ben, cy = rows(out / "marks.csv")
    assert [ada[name] for name in ("student", "name", "merge", "score", "points")] == ["11", "Ada L", "2", "14", "18"]
    assert (ben["merge"], ben["lora_backward"], ben["words_07_lora_layer"]) == ("0", "6", "")
    assert "05.ipynb: not gradable: notebook: 05.ipynb is not a" in cy["notes"] and str(class_of_three) not in read(
        "marks.csv"
    )
    assert "W_merged lacks the factor s (1)" in read("class.md")
    assert (out / "class.png").read_bytes()[:4] == b"\x89PNG"
    assert "Because." in read("words.md") and "one point each" in read("words.md")
    feedback = "Ben K_12_assignsubmission_file", "05 (1).txt"
    assert "W_merged lacks the factor s" in read(*feedback) and str(class_of_three) not in read(*feedback)

    # The teacher reads, and fills in points; they stay through the next grading.
    words = "12,Ben K,words_07_lora_layer,4,"
    text = read("words.csv").replace(f"{words},", f"{words}1.5,short")
    (out / "words.csv").write_text(text, encoding="utf-8")
    moodle, canvas = tmp_path / "moodle.csv", tmp_path / "canvas.csv"
    moodle.write_text(
        "Identifier,Full name,Grade,Maximum Grade\nParticipant 11,Ada L,,100\nParticipant 12,Ben K,,100\n"
    )
    canvas.write_text("Student,ID,Section,LoRA 05 (77),Final Score\n,,,,\nL. Ada,11,A,,3\n")
    assert main([*command, "--moodle", str(moodle), "--canvas", str(canvas)]) == 1
    ada, ben, _ = rows(out / "marks.csv")
    assert (ben["words_07_lora_layer"], ben["score"]) == ("1.5", "13.5") and "short" in read(*feedback)
    assert [row["Grade"] for row in rows(out / "moodle.csv")] == ["77.78", "75.00"]
    assert (out / "moodle.csv").read_bytes().startswith(b"Identifier")
    assert rows(out / "canvas.csv")[1] == {"Student": "L. Ada", "ID": "11", "Section": "A", "LoRA 05 (77)": "14"}
    (out / "words.csv").write_text(text.replace(",1.5,", ",9,"), encoding="utf-8")
    broken = class_of_three / "Cy M_13_assignsubmission_file"
    fails("classroom", "grade", broken, "--out", out, says=["got '9' points, expected 0 to 4"])


@pytest.mark.slow
def test_a_term(tmp_path):
    """25 students from Moodle: two attempts, files that cannot be graded, a German worksheet; all files agree."""
    names = [f"Åsa Ö{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXY"]
    folders = {name: tmp_path / "in" / f"{name}_{100 + n}_assignsubmission_file" for n, name in enumerate(names)}
    for folder in folders.values():
        folder.mkdir(parents=True)
    whole, half = handed_in(), handed_in("student", merge="def merge(W, A, B, s):\n    return W + s * B @ A")
    for n, name in enumerate(names[5:]):
        hand_in(folders[name] / "07.ipynb", whole if n % 2 else half)
    hand_in(folders[names[0]] / "07 (1).ipynb", whole)
    hand_in(folders[names[0]] / "07 (2).ipynb", half)
    (folders[names[1]] / "07.py").write_text("def merge(W, A, B, s): pass")
    (folders[names[2]] / "07.zip").write_bytes(b"PK")
    (folders[names[3]] / "07.ipynb").write_text("no notebook")
    hand_in(folders[names[4]] / "07.ipynb", whole)
    (folders[names[4]] / "helper.py").touch()
    heads = "ID", "Vollständiger Name", "Status", "Bewertung", "Bestwertung", "Feedback als Kommentar"
    lines = [";".join(heads), *(f"Teilnehmer/in{100 + n};{name};;;50,00;" for n, name in enumerate(names))]
    (tmp_path / "moodle.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    command = ["classroom", "grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--moodle"]
    assert main([*command, str(tmp_path / "moodle.csv")]) == 1

    marks = rows(tmp_path / "out" / "marks.csv")
    assert [(row["student"], row["name"]) for row in marks] == [(str(100 + n), name) for n, name in enumerate(names)]
    given = [float(row["score"]) for row in marks]
    assert given == [14.0, 0.0, 0.0, 0.0, 14.0] + [2.0, 14.0] * 10
    assert "07 (2).ipynb: not counted, because 07 (1).ipynb counts" in marks[0]["notes"]
    reasons = {1: "ask the student for the notebook", 2: "unpack it", 3: "is not a Jupyter notebook"}
    comments = [row["Feedback als Kommentar"] for row in rows(tmp_path / "out" / "moodle.csv", ";")]
    overview = (tmp_path / "out" / "class.md").read_text("utf-8")
    for n, reason in reasons.items():
        assert all("not gradable: notebook: 07" in text for text in (marks[n]["notes"], comments[n]))
        assert all(reason in text for text in (marks[n]["notes"], comments[n], overview))
    moodle = [row["Bewertung"] for row in rows(tmp_path / "out" / "moodle.csv", ";")]
    assert moodle == [
        f"{50 * score / 18:.2f}".replace(".", ",") if score or n > 3 else "" for n, score in enumerate(given)
    ]
    assert "merge: 2 of 2 points" in comments[6] and "<br>" in comments[6]
    words = rows(tmp_path / "out" / "words.csv")
    assert len(words) == 22 and "## 07_lora_layer: 22 notebooks" in overview
    assert {row["name"] for row in words} == {name for n, name in enumerate(names) if n not in reasons}


def test_marks_are_written_whatever_else_fails(class_of_three, tmp_path, monkeypatch):
    def fail(*given):
        raise RuntimeError("no glyph")

    monkeypatch.setattr("lora_np.classroom.marks.as_png", fail)
    ada = next(class_of_three.glob("Ada*/*.ipynb"))
    with pytest.raises(ValueError, match="class.png was not written: no glyph"):
        write_class(tmp_path, {str(ada): grade(ada)})
    assert rows(tmp_path / "marks.csv")[0]["score"] == "14" and (tmp_path / "words.md").is_file()


def test_notebooks_are_collected_for_nbgrader(class_of_three, tmp_path):
    second = hand_in(class_of_three / "Ada L_11_assignsubmission_file" / "b.ipynb", handed_in())
    ada, again, ben, broken = collect(tmp_path / "course", submissions.find_submissions([class_of_three])).values()
    second.unlink()
    for place, student in ((ada, 11), (ben, 12)):
        assert place == tmp_path / "course" / "submitted" / str(student) / SET / f"{SET}.ipynb"
    assert "second notebook" in str(again) and "not a Jupyter notebook" in str(broken)


def test_a_report_tells_words_from_marks():
    words = Mark("words", 0.0, 4.0, "because", True)
    marks = Mark("a", 1.0, 2.0, "a: 1 of 2 points"), Mark("b", 0.0, 1.0, "NameError"), words
    said = report(Graded("x/anna.ipynb", "set", marks))
    assert "1 of 3 points, and up to 4 for" in said and "\na: 1 of 2 points\nb: 0 of 1 point\n  NameError\n" in said
    assert said.endswith("words: to be graded by the teacher, 4 points\nbecause")
    assert "words: 3 of 4 points\nbecause\ngood" in report(Graded("x/anna.ipynb", "set", marks), (3.0, "good"))


def test_submissions_are_found(tmp_path):
    a, b, _ = places = [tmp_path / f"{place}.ipynb" for place in ("a/05", "b/05", "a/.ipynb_checkpoints/05-checkpoint")]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    found = {(tmp_path,): [a, b], (tmp_path / "b" / "*.ipynb", a, a): [b, a], ("gone.ipynb",): ["gone.ipynb"]}
    for given, expected in found.items():
        assert submissions.find_submissions(list(given)) == list(map(str, expected))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="contains no notebook"):
        submissions.find_submissions([tmp_path / "empty"])
