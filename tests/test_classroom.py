"""The classroom: what the checks say of a student's function, notebooks as files, the release, and the grading."""

import copy
import json
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from lora_np.classroom import check, notebooks, submissions
from lora_np.classroom.agreement import differs, text
from lora_np.classroom.examine import examine
from lora_np.classroom.grading import Graded, Mark, grade, report
from lora_np.classroom.item import SIZES, draw_inputs
from lora_np.classroom.items import ITEMS
from lora_np.classroom.release import SOURCES, find_sources, for_students, mark, solved, without_solution
from lora_np.cli import main

nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def fresh_record(monkeypatch):
    monkeypatch.setattr(check, "_RECORD", {})


def merge(W, A, B, s):
    return W + s * B @ A


def right_backward(dy, x, W, A, B, s):
    du = s * dy @ B
    return dy @ W + du @ A, du.T @ x, s * dy.T @ (x @ A.T)


# ---------------------------------------------------------------- what a check looks at, in order


async def later(W, A, B, s):
    return W


def changed(W, A, B, s):
    W += s * B @ A
    return W


FAILED = {  # what is said of a function that gives nothing to look at
    "got ndarray, expected the function itself": merge(*[np.eye(2)] * 3, 1.0),
    "it returns nothing; expected W_merged": lambda W, A, B, s: None,
    "it raises IndexError: list index out of range, in line 1 of the function": lambda W, A, B, s: [][1],
    "it raises ValueError": lambda W, A, B, s: W @ A.T @ A.T,
    "it raises SystemExit": lambda W, A, B, s: exit(),
    "It is called as merge(W, A, B, s)": lambda W, A: W,
    "it returns a dict of M; expected W_merged": lambda W, A, B, s: {"M": W},
    "it changes its argument W: compute into a new array": changed,
}
OF_WRONG_FORM = {  # and of an output
    "it is a tuple of 2 arrays, expected one array of numbers": lambda W, A, B, s: {"W_merged": (B, A)},
    "it is a str, expected numbers": lambda W, A, B, s: "W",
    "it is an array of dtype object, expected numbers": lambda W, A, B, s: W.astype(object),
    "it is a generator (does it say `yield` in place of": lambda W, A, B, s: (row for row in W),
    "it is a coroutine (is it an `async def`?)": later,
    "it is a tuple of 2, expected one array of shape (5, 4)": lambda W, A, B, s: (W, W),
    "the inputs' own; its numbers are right": lambda *inputs: merge(*inputs).astype("f4"),
    "it has dtype float32, expected float64, the inputs' own": lambda W, A, B, s: W.astype("f4"),
}
WRONG = {  # and, with a hint at the mathematics, of one whose form is not what is wrong
    "it has shape (4,), expected (5, 4)": lambda W, A, B, s: {"W_merged": W.tolist()[0]},
    "it has shape (4, 5), expected (5, 4) (it is transposed)": lambda *inputs: merge(*inputs).T,
    "it is not finite (NaN or infinity) in 20 of 20 places": lambda W, A, B, s: np.log(-abs(W)),
    "relative error": lambda W, A, B, s: W + 1,
    "relative error ": lambda W, A, B, s: W + SIZES[0].alpha / SIZES[0].r * B @ A,  # right for some sizes
}


@pytest.mark.parametrize("said", [*FAILED, *OF_WRONG_FORM, *WRONG])
def test_what_is_said_of_a_wrong_function(said):
    result = examine(ITEMS["merge"], {**FAILED, **OF_WRONG_FORM, **WRONG}[said])
    assert result.score == 0.0 and said in (result.failed or result.findings[0].wrong)
    assert (result.failed is not None) == (said in FAILED)
    assert said in FAILED or (result.findings[0].hint is not None) == (said in WRONG)


def loud(dy, x, W, A, B, s):
    """Right, with a warning of its own and one of NumPy's."""
    warnings.warn("look here", stacklevel=2)
    np.log(np.zeros(3))
    return right_backward(dy, x, W, A, B, s)


NAMES = ("dx", "dA", "dB")
FORMS = {
    "tuple": right_backward,
    "list": lambda *inputs: list(right_backward(*inputs)),
    "dict": lambda *inputs: dict(zip(NAMES, right_backward(*inputs))),
    "dict with more": lambda *inputs: {"u": 0, **dict(zip(NAMES, right_backward(*inputs)))},
    "with warnings": loud,
}


@pytest.mark.parametrize("function", FORMS.values(), ids=FORMS)
def test_outputs_come_in_any_form(function, capsys):
    assert check.lora_backward(function) == 1.0
    assert capsys.readouterr().err == ""


# Nothing is guessed from one draw alone: 2.5 is α/r in the first, and not in the second.
GUESSES = {
    "merge": (lambda *inputs: 2.5 * merge(*inputs), ["it is the right value times 2.5"]),
    "lora_backward": (
        lambda *inputs: right_backward(*inputs)[::-1],
        ["it is dB; the order is dx, dA, dB", "it is dx; the order is dx, dA, dB"],
    ),
}


@pytest.mark.parametrize("name", GUESSES)
def test_what_a_wrong_output_looks_like(name):
    function, sentences = GUESSES[name]
    findings = examine(ITEMS[name], function).findings
    assert [finding.looks_like for finding in findings if finding.wrong] == [(sentence,) for sentence in sentences]


def test_what_is_told_of_numbers_and_of_unknown_mistakes():
    number = examine(ITEMS["adapter_size"], lambda n_out, n_in, r: r).findings[0].wrong
    assert "r = " in number and "it is " in number  # with what it was computed from
    unknown = examine(ITEMS["merge"], lambda W, A, B, s: W + np.tanh(B @ A))
    assert "their cosine" in unknown.findings[0].looks_like[0]


def test_each_output_counts_for_itself():
    def two_of_three(*given):
        dx, dA, dB = right_backward(*given)
        return dx, dA, 2 * dB

    result = examine(ITEMS["lora_backward"], two_of_three)
    assert result.score == pytest.approx(2 / 3) and [f.output for f in result.findings if f.wrong] == ["dB"]
    wrong_number = examine(ITEMS["lora_backward"], lambda *given: right_backward(*given)[:2])
    assert wrong_number.failed == "it returns 2 values; expected dx, dA, dB, 3 in this order"
    some = examine(ITEMS["lora_backward"], lambda *given: {"dx": right_backward(*given)[0]})
    assert some.score == pytest.approx(1 / 3) and some.findings[1].wrong == "it is None"


@pytest.mark.parametrize("name", ITEMS)
def test_draws_have_no_special_points_and_checks_are_documented(name):
    """No array is zero throughout, and no number the same in both draws: a function could have it written into it."""
    (one, first), (two, second) = (draw_inputs(ITEMS[name], seed) for seed in range(len(SIZES)))
    arrays = [a for a in (*one.values(), *two.values()) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    assert all(a.dtype == np.float64 and np.any(a) for a in arrays)
    right = [*first.right.values(), *second.right.values()]
    assert all(map(np.any, right)), "a right output of zeros cannot be got wrong"
    if name not in {"fit_lora", "loftq_start"}:  # a schedule, and the package's own number of rounds
        assert not [key for key, value in one.items() if isinstance(value, (int, float)) and value == two[key]]
    assert ITEMS[name].task in getattr(check, name).__doc__ and name in check.__all__


def value_of(wrong, draw):
    """What a mistake gives in a draw; None where its sizes make it impossible."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(wrong(draw))
    except (ValueError, IndexError, ZeroDivisionError):
        return None


def alike(one, two):
    possible = one is not None and two is not None
    return possible and one.shape == two.shape and np.allclose(one, two, rtol=1e-6)


@pytest.mark.parametrize("name", ITEMS)
def test_known_mistakes_are_mistakes_and_tell_themselves_apart(name):
    """Each value differs from the right one, in one draw at least, and from those of all other sentences."""
    item = ITEMS[name]
    draws = [draw_inputs(item, seed)[1] for seed in range(len(SIZES))]
    assert set(item.mistakes) <= set(draws[0].right)
    for output, mistakes in item.mistakes.items():
        right = [np.asarray(draw.right[output]) for draw in draws]
        values = [(sentence, [value_of(wrong, draw) for draw in draws]) for sentence, wrong in mistakes]
        for k, (sentence, value) in enumerate(values):
            assert any(v is not None for v in value), f"{sentence!r} is impossible in every draw"
            assert not all(v is None or alike(v, r) for v, r in zip(value, right)), f"{sentence!r} is the right value"
            for other, another in values[:k]:
                assert sentence == other or not all(map(alike, value, another)), (sentence, other)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("not even this")


def mute(*given):
    raise Mute


def noisy(*given):
    print("to stderr", file=sys.stderr)
    warnings.warn("and a warning", stacklevel=2)
    return np.log(np.zeros(3))


class Odd:
    def __array__(self, *given, **more):
        raise RuntimeError("no array of mine")


WILD = [None, [None], (None, None), "text", 1j, Odd(), np.nan, -np.inf, 5e-324, 1e308, [[1.0], [1.0, 2.0]], {}, set()]
WILD += [np.ma.masked, np.array(["a"]), np.array([None]), np.zeros(0), np.array(True), range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ITEMS)
def test_a_check_survives_whatever_is_returned(name, capsys):
    """In every place alone and in all places, and it says so on stdout alone."""
    item = ITEMS[name]
    functions = [mute, noisy]
    for value in WILD:
        functions.append(lambda *given, value=value: value)
        functions.append(lambda *given, value=value: (value,) * len(item.outputs))
    if item.properties is None:
        shapes = [np.shape(a) for a in draw_inputs(item, 0)[1].right.values()]
        for number in (np.nan, 1e200, 5e-324, 1j):
            functions.append(lambda *given, number=number: tuple(np.full(shape, number) for shape in shapes))
    for function in functions:
        assert 0.0 <= getattr(check, name)(function) < 1.0
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- what a notebook calls


def test_a_check_returns_a_plain_float_and_prints_the_hint_but_not_the_formula(capsys):
    item = ITEMS["lora_backward"]
    score = check.lora_backward(lambda dy, x, W, A, B, s: (dy @ W, (dy @ B).T @ x, s * dy.T @ (x @ A.T)), points=6)
    said = capsys.readouterr()
    assert type(score) is float and score == 2.0 and said.err == ""
    assert item.hints["dx"] in said.out and "dx lacks the adapter's path" in said.out
    assert item.formula not in said.out
    check.formula("lora_backward")
    assert item.formula in capsys.readouterr().out
    check.formula(merge)
    assert ITEMS["merge"].formula in capsys.readouterr().out
    with pytest.raises(ValueError, match="name: got 'lora_back', expected the name of a check, such as lora_backward"):
        check.formula("lora_back")
    with pytest.raises(ValueError, match="points: got '3', expected a number"):
        check.merge(merge, points="3")


def test_the_record_is_plain_json(tmp_path, capsys):
    check.merge(merge, points=2)
    check.lora_backward(lambda *given: None)
    check.save(tmp_path / "marks.json")
    saved = json.loads((tmp_path / "marks.json").read_text("utf-8"))
    assert saved == check.record()
    assert saved["merge"]["score"] == 2.0 == saved["merge"]["points"] and saved["lora_backward"]["failed"]
    assert check.summary() == pytest.approx(2 / 3)
    assert "2 of 3" in capsys.readouterr().out


# ---------------------------------------------------------------- stored outputs against a re-run


AGREEMENT = {  # stored, now, tags of the cell, whether they agree
    "equal": ("loss 4.28\n", "loss 4.28\n", (), True),
    "a unit of the last digit": ("loss 4.28", "loss 4.29", (), True),
    "rounding errors": ("error 3e-11", "error 9e-12", (), True),
    "training": ("accuracy 76.2 %", "accuracy 74.9 %", ("training",), True),
    "times": ("step 61 ms", "step 16 ms", ("varies",), True),
    "white space": ("a   1", "a 1", (), True),
    "words": ("the loss 4.28", "a loss 4.28", ("varies",), False),
    "two units": ("loss 4.28", "loss 4.30", (), False),
    "a whole number": ("rank 8", "rank 9", (), False),
    "a sign": ("3e-11", "-3e-11", (), False),
    "an error that is none": ("3e-11", "3e-2", (), False),
    "far off in training": ("accuracy 76.2", "accuracy 60.0", ("training",), False),
    "a number more": ("1 2", "1 2 3", ("varies",), False),
}


@pytest.mark.parametrize("one, two, tags, agree", AGREEMENT.values(), ids=AGREEMENT)
def test_which_outputs_agree(one, two, tags, agree):
    assert (not differs(one, two, tags)) == agree


def notebook_of(*cells):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])


def classroom(*words):
    """The command in a process of its own, where Jupyter's loops and sockets end: exit code, and what it says."""
    command = [sys.executable, "-m", "lora_np", "classroom", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    return done.returncode, done.stdout


SLIDER = "from ipywidgets import interact\ninteract(lambda k: {}, k=(0, 2));"
FAILING = {  # words of the command, what it says, the notebook's cells
    "another output": (["--check"], "cell 1: stored 4; now 3", ["x = 2", "x + 1"]),
    "stderr": ([], "writes to stderr: 'no'", ["import sys; print('no', file=sys.stderr)"]),
    "a later name": ([], "behind a slider: TypeError", ["def f(k, j): return k", SLIDER.format("f(k, 1)"), "f = abs"]),
    "an exception": ([], "ZeroDivisionError", ["1 / 0"]),
    "a slider": ([], "behind a slider: ZeroDivisionError", [SLIDER.format("1 / 0")]),
}


@pytest.mark.slow
def test_a_notebook_is_executed_stored_and_compared(tmp_path):
    path = tmp_path / "a.ipynb"
    where = f"import os; os.getcwd().endswith({tmp_path.name!r})"
    notebooks.write_notebook(path, notebook_of("x = 2\nprint(x)", "x + 1", where))
    assert classroom("execute", path)[0] == 0
    stored = notebooks.read_notebook(path)
    assert [text(cell.outputs[0]) for cell in stored.cells] == ["2\n", "3", "True"]
    assert classroom("execute", "--check", path)[0] == 0


@pytest.mark.slow
def test_one_odd_notebook_does_not_stop_the_others(tmp_path):
    odd, good = notebook_of("1"), notebook_of("2 + 2")
    notebooks.write_notebook(tmp_path / "good.ipynb", good)
    del odd.cells[0]["cell_type"]  # nbformat reads it all the same
    (tmp_path / "odd.ipynb").write_text(json.dumps(odd))
    code, told = classroom("execute", tmp_path / "odd.ipynb", tmp_path / "good.ipynb")
    assert code == 1 and "AttributeError" in told and "1 complaints" in told
    assert notebooks.read_notebook(tmp_path / "good.ipynb").cells[0].outputs


@pytest.mark.slow
@pytest.mark.parametrize("words, said, cells", FAILING.values(), ids=FAILING)
def test_a_notebook_that_fails_is_left_alone(tmp_path, words, said, cells):
    path, notebook = tmp_path / "a.ipynb", notebook_of(*cells)
    if "--check" in words:
        notebook.cells[1].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "4"}, execution_count=2)]
    if len(cells) == 3:
        notebook.cells[1].metadata.tags = ["interactive"]
    notebooks.write_notebook(path, notebook)
    before = path.read_bytes()
    code, told = classroom("execute", *words, path)
    assert code == 1 and said in told and path.read_bytes() == before


SILENT = {  # what a kernel does that gives no answer any more
    "stops": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "idles": "get_ipython().kernel.session.send = lambda *given, **more: None",
}


@pytest.mark.slow
@pytest.mark.parametrize("cell", SILENT.values(), ids=SILENT)
def test_a_kernel_that_gives_no_answer_is_ended(tmp_path, monkeypatch, cell):
    """Within the limit, by the number of the cell, and no thread is left behind."""
    monkeypatch.setattr(notebooks, "TIMEOUT", 4)
    monkeypatch.setattr(submissions, "CELL_SECONDS", 3)
    monkeypatch.setattr(submissions, "GRACE_SECONDS", 1)
    threads, started = threading.active_count(), perf_counter()
    with pytest.raises(ValueError, match="a.ipynb stopped: cell 1: it runs for more than 4 s, and its kernel does not"):
        notebooks.execute(tmp_path / "a.ipynb", notebook_of("x = 1", cell, "x"))
    done = submissions.run_submission(tmp_path / "a.ipynb", notebook_of("x = 1", cell, "x"))
    assert submissions.error_of(done.cells[1]).startswith("it runs for more than 4 s") and text(
        done.cells[2].outputs[0]
    )
    assert threading.active_count() == threads and perf_counter() - started < 60


# ---------------------------------------------------------------- release and grading


def test_a_solution_is_cut_out_with_its_indentation():
    source = "def f(x):\n    ### BEGIN SOLUTION\n    y = x\n    return y\n    ### END SOLUTION\nprint(1)"
    stub = "def f(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()\nprint(1)"
    assert without_solution(source, "code", "here") == stub
    for broken, said in {
        "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION": "inside a solution",
        "### END SOLUTION": "has not begun",
        "### BEGIN SOLUTION": "does not end it",
        "x = 1": "has none between",
    }.items():
        with pytest.raises(ValueError, match=said):
            without_solution(broken, "code", "here")
    with pytest.raises(ValueError, match="metadata do not say so"):
        for_students(notebook_of("### BEGIN SOLUTION\nx = 1\n### END SOLUTION"), "a")


def test_the_release(tmp_path, capsys):
    assert main(["classroom", "release", str(tmp_path / "out")]) == 0
    sets = [path.name for path in find_sources()]
    for folder in ("student", "solutions"):
        assert sorted(path.name for path in (tmp_path / "out" / folder).glob("*.ipynb")) == sets
    assert "pip install PATH_OF_THE_CLONE" in (tmp_path / "out" / "student" / "README.md").read_text("utf-8")
    for path in (tmp_path / "out" / "student").glob("*.ipynb"):
        text = path.read_text("utf-8")
        assert "SOLUTION" not in text and "YOUR CODE HERE" in text
        assert all(not cell.get("outputs") for cell in notebooks.read_notebook(path).cells)
    for path in (tmp_path / "out" / "solutions").iterdir():
        text = path.read_text("utf-8")
        assert "SOLUTION" not in text and "YOUR CODE HERE" not in text and "NotImplementedError" not in text
    capsys.readouterr()
    assert main(["classroom", "release", str(tmp_path / "out")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["classroom", "release", str(tmp_path / "out"), "--force"]) == 0
    assert main(["classroom", "release", str(SOURCES)]) == 2
    assert main(["classroom", "release", str(tmp_path / "b"), "--source", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["classroom", "release", str(tmp_path / "course"), "--nbgrader"]) == 0
    assert f"nbgrader autograde {sets[0][:-6]}" in capsys.readouterr().out
    assert (tmp_path / "course" / "nbgrader_config.py").is_file()
    assert {path.parent.name for path in (tmp_path / "course" / "source").glob("*/*.ipynb")} == {n[:-6] for n in sets}


SOURCE_05 = SOURCES / "05_lora_layer.ipynb"


def set_05(**changed):
    """The solution of set 05 with other sources in some cells."""
    notebook = solved(notebooks.read_notebook(SOURCE_05))
    for cell in notebook.cells:
        cell.source = changed.get(mark(cell).get("grade_id"), cell.source)
    return notebook


@pytest.mark.slow
def test_submissions_are_graded_by_the_sources_cells(tmp_path):
    """Whatever a submission has in their place; a copy of one, which has its metadata too, counts for nothing."""
    honest = set_05(merge="def merge(W, A, B, s):\n    print('a line of mine')\n    return W + s * B @ A")
    honest.cells = [cell for cell in honest.cells if mark(cell).get("grade_id") != "check_merge"]
    sly = for_students(notebooks.read_notebook(SOURCE_05))
    for cell in sly.cells:
        if mark(cell).get("grade") and cell.cell_type == "code":
            cell.source = "100.0"
    for name, notebook in {"anna": honest, "ben": sly}.items():
        check_cell = next(cell for cell in notebook.cells if mark(cell).get("grade_id") == "check_lora_backward")
        copied = copy.deepcopy(check_cell)
        copied.id = "copied"
        copied.source = "6.0" if notebook is sly else "print('mine')"
        notebook.cells.append(copied)
        (tmp_path / name).mkdir()
        notebooks.write_notebook(tmp_path / name / "05.ipynb", notebook)
    options = ["--out", tmp_path / "out", "--json", tmp_path / "marks.json", "--jobs", "1"]
    code, out = classroom("grade", tmp_path / "anna", tmp_path / "ben", *options)
    anna, ben = json.loads((tmp_path / "marks.json").read_text("utf-8")).values()
    assert code == 0 and anna["score"] == 14.0 == anna["points"] and ben["score"] == 0.0
    assert anna["items"]["words_start"]["by_hand"] and "dA" in anna["items"]["words_start"]["said"]
    assert "it is not written yet" in out and "14 of 14" in out
    rows = (tmp_path / "out" / "marks.csv").read_text("utf-8").splitlines()
    assert [row.split(",")[1:5] for row in rows[1:]] == [["05_lora_layer", score, "14", "4"] for score in ("14", "0")]
    feedback = (tmp_path / "out" / "anna" / "05.txt").read_text("utf-8")
    assert "merge: 2 of 2 points" in feedback and "a line of mine" not in feedback
    feedback = (tmp_path / "out" / "ben" / "05.txt").read_text("utf-8")
    assert "it is not written yet" in feedback and "not answered" in feedback
    assert len(list((tmp_path / "out").rglob("*.*"))) == 3


SWALLOWS = """def merge(W, A, B, s):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""
PRINTS = "def lora_init(n_out, n_in, r, rng):\n    while True:\n        print('x' * 1000)"
LOOPS = "def lora_forward(x, W, b, A, B, s):\n    print('so far')\n    while True:\n        pass"


@pytest.mark.slow
def test_what_never_ends_costs_itself_alone(tmp_path, monkeypatch):
    """A loop that can be interrupted, one that cannot, and one that prints."""
    monkeypatch.setattr(submissions, "CELL_SECONDS", 4)
    monkeypatch.setattr(submissions, "GRACE_SECONDS", 3)
    path = tmp_path / "a.ipynb"
    notebooks.write_notebook(path, set_05(merge=SWALLOWS, lora_init=PRINTS, lora_forward=LOOPS))
    graded = grade(path)
    said = {one.item: one.said for one in graded.marks}
    assert [one.score for one in graded.marks if not one.by_hand] == [0.0, 0.0, 0.0, 6.0]
    assert said["check_merge"].startswith("it runs for more than 7 s, and its kernel does not answer;")
    assert said["check_lora_init"] == "it prints without end; all else was run without it"
    assert said["check_lora_forward"] == "it was stopped after 4 s: is there a loop that does not end?"


@pytest.mark.slow
def test_one_bad_submission_does_not_stop_the_others(tmp_path):
    typo = set_05(merge="def merge(W, A, B, s) return W")
    cell = next(cell for cell in typo.cells if mark(cell).get("grade_id") == "check_lora_init")
    typo.cells[typo.cells.index(cell)] = nbformat.v4.new_markdown_cell(cell.source, metadata=cell.metadata)
    submitted = {"leaver": set_05(merge="import os; os._exit(0)"), "typo": typo, "good": set_05()}
    for name, notebook in submitted.items():
        notebooks.write_notebook(tmp_path / f"{name}.ipynb", notebook)
    (tmp_path / "empty.ipynb").write_text("")
    files = [tmp_path / f"{name}.ipynb" for name in ("empty", "leaver", "typo", "gone", "good")]
    code, out = classroom("grade", *files, "--json", tmp_path / "marks.json")
    marks = json.loads((tmp_path / "marks.json").read_text("utf-8"))
    assert code == 1 and "not graded" in out
    assert [marks[str(file)].get("score") for file in files] == [None, 12.0, 12.0, None, 14.0]
    assert "SyntaxError" in marks[str(files[2])]["items"]["check_merge"]["said"]
    said = marks[str(files[1])]["items"]["check_merge"]["said"]
    assert said == "your cell: it ends the kernel; all else was run without it"


def test_files_that_are_no_notebooks_or_no_submissions(tmp_path, capsys):
    path, other = tmp_path / "a.ipynb", tmp_path / "b.ipynb"
    path.write_text("print(1)")
    assert main(["classroom", "execute", str(path), str(other)]) == 1
    said = capsys.readouterr().out
    assert "is not a Jupyter notebook" in said and "there is no file" in said
    assert main(["classroom", "execute", "--jobs", "0", str(path)]) == 2
    notebooks.write_notebook(other, notebook_of("1"))
    before = other.read_bytes()  # marks are not written over a submission
    assert main(["classroom", "grade", str(other), "--json", str(other)]) == 2 and other.read_bytes() == before
    assert "is also read from" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has none of the graded cells of the 11 sets"):
        grade(other)


def test_what_has_almost_the_form_of_a_notebook(tmp_path, capsys):
    """nbformat reads it. It is refused by name, stops no other, and nothing is half-written."""
    odd, other = tmp_path / "odd" / "a.ipynb", tmp_path / "other.ipynb"
    odd.parent.mkdir()
    notebook = json.loads(SOURCE_05.read_text("utf-8"))
    for cell in notebook["cells"]:
        cell["metadata"]["nbgrader"] = {"grade": True, "grade_id": ["check_merge"]}
    other.write_text("no notebook")
    no_type = {name: value for name, value in notebook["cells"][0].items() if name != "cell_type"}
    for cell in (no_type, notebook["cells"][0] | {"source": "\ud800", "metadata": {}}):
        odd.write_text(json.dumps(notebook | {"cells": [cell]}))
        assert main(["classroom", "release", str(tmp_path / "more"), "--source", str(odd.parent)]) == 2
        assert "a is not a whole notebook" in capsys.readouterr().err and not (tmp_path / "more").exists()
    odd.write_text(json.dumps(notebook))
    assert main(["classroom", "grade", str(odd), str(other)]) == 1
    said = capsys.readouterr().out
    assert "a.ipynb cannot be graded" in said and "other.ipynb is not a Jupyter notebook" in said


def test_a_report_tells_words_from_marks():
    marks = (
        Mark("check_a", 1.0, 2.0, "a: 1 of 2 points"),
        Mark("words", 0.0, 4.0, "because", True),
        Mark("check_b", 0.0, 1.0, "NameError"),
    )
    said = report(Graded("x/anna.ipynb", "set", marks))
    words = "words: to be read by the teacher, 4 points\nbecause"
    head = "x/anna.ipynb: 1 of 3 points, and up to 4 for what the teacher reads"
    assert said == f"{head}\na: 1 of 2 points\n{words}\nb: 0 of 1 point\n  NameError"


def test_submissions_are_found(tmp_path):
    for place in ("b/05.ipynb", "a/05.ipynb", "a/.ipynb_checkpoints/05-checkpoint.ipynb"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    a, b = (str(tmp_path / name / "05.ipynb") for name in "ab")
    assert submissions.find_submissions([tmp_path]) == [a, b]
    assert submissions.find_submissions([tmp_path / "b" / "*.ipynb", a, a]) == [b, a]
    assert submissions.find_submissions([tmp_path / "*" / "05.ipynb"]) == [a, b]
    assert submissions.find_submissions(["gone.ipynb"]) == ["gone.ipynb"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no notebook"):
        submissions.find_submissions([tmp_path / "empty"])
