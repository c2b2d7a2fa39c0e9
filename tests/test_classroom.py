"""The classroom: what the checks say of a student's function, and notebooks as files."""

import base64
import io
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from lora_np.classroom import book, book_links, check, notebooks
from lora_np.classroom.agreement import differs, text
from lora_np.classroom.check import ITEMS
from lora_np.classroom.examine import examine
from lora_np.classroom.exercise import draws_of

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


async def later(W, A, B, s):
    return W


def changed(W, A, B, s):
    W += s * B @ A
    return W


FAILED = {  # what is said of a function that gives nothing to look at
    "got ndarray, expected the function itself": merge(*[np.eye(2)] * 3, 1.0),
    "it is not written yet": lambda W, A, B, s: ...,
    "it returns nothing; expected W_merged": lambda W, A, B, s: None,
    "it raises IndexError: list index out of range, in line 1 of the function": lambda W, A, B, s: [][1],
    "it raises ValueError": lambda W, A, B, s: W @ A.T @ A.T,
    "it raises SystemExit": lambda W, A, B, s: exit(),
    "It is called as merge(W, A, B, s)": lambda W, A: W,
    "it returns a dict that contains M; expected W_merged": lambda W, A, B, s: {"M": W},
    "it modifies W in place: store results in a new array": changed,
}
OF_WRONG_FORM = {  # and of an output
    "it is a tuple of 2 arrays, expected one array of numbers": lambda W, A, B, s: {"W_merged": (B, A)},
    "it is a str, expected numbers": lambda W, A, B, s: "W",
    "it is an array of dtype object, expected numbers": lambda W, A, B, s: np.array([W, None], dtype=object),
    "it is a generator (does it say `yield` instead of": lambda W, A, B, s: (row for row in W),
    "it is a coroutine (is it an `async def`?)": later,
    "it is a tuple of 2 values, expected one array of shape": lambda W, A, B, s: (W, W),
    "it has dtype int64, expected float64, like the inputs": lambda W, A, B, s: W.astype("i8"),
}
(FIRST, *_) = draws_of(ITEMS["merge"])
SHAPE = FIRST.W.shape
WRONG = {  # and, with a hint at the mathematics, of one whose form is not what is wrong
    f"it has shape {SHAPE[1:]}, expected {SHAPE}": lambda W, A, B, s: {"W_merged": W.tolist()[0]},
    f"it has shape {SHAPE[::-1]}, expected {SHAPE} (it is transposed)": lambda *inputs: merge(*inputs).T,
    f"root or logarithm of a negative number) in {FIRST.W.size} of": lambda W, A, B, s: np.log(-abs(W)),
    "it is not finite (infinity: an exponential of a large number": lambda W, A, B, s: W / 0,
    "relative error": lambda W, A, B, s: W + 1,
    "relative error ": lambda W, A, B, s: W + FIRST.s * B @ A,  # right for one draw
}


@pytest.mark.parametrize("said", [*FAILED, *OF_WRONG_FORM, *WRONG])
def test_what_is_said_of_a_wrong_function(said):
    result = examine(ITEMS["merge"], {**FAILED, **OF_WRONG_FORM, **WRONG}[said])
    assert result.score == 0.0 and said in (result.failed or result.findings[0].wrong)
    assert (result.failed is not None) == (said in FAILED)
    assert said in FAILED or (result.findings[0].hint is not None) == (said in WRONG)


def test_what_a_wrong_output_looks_like():
    """Nothing is guessed from one draw alone: the factor is α/r in the first, and not in the others."""

    def looks_like(name, function):
        return [finding.looks_like for finding in examine(ITEMS[name], function).findings if finding.wrong]

    (scaled,) = looks_like("merge", lambda *inputs: FIRST.s * merge(*inputs))
    assert scaled == (f"it is the right value times {FIRST.s:.9g}",)
    turned = looks_like("lora_backward", lambda *inputs: right_backward(*inputs)[::-1])
    assert turned == [("it is dB; the order is dx, dA, dB",), ("it is dx; the order is dx, dA, dB",)]
    (unknown,) = looks_like("merge", lambda W, A, B, s: W + np.tanh(B @ A))
    assert "the cosine similarity is" in unknown[0]
    number = examine(ITEMS["adapter_size"], lambda n_out, n_in, r: r**3 + 7).findings[0].wrong
    assert "r = " in number and "it is " in number  # with what it was computed from


def test_each_output_counts_for_itself():
    def examined(of):
        return examine(ITEMS["lora_backward"], lambda *given: of(*right_backward(*given)))

    result = examined(lambda dx, dA, dB: (dx, dA, 2 * dB))
    assert result.score == pytest.approx(2 / 3) and [f.output for f in result.findings if f.wrong] == ["dB"]
    few, unwritten = examined(lambda dx, dA, dB: (dx, dA)), examined(lambda *gradients: (..., ..., ...))
    assert few.failed == "it returns 2 values; expected dx, dA, dB, in this order"
    assert unwritten.failed == "it is not written yet"
    some = examined(lambda dx, dA, dB: {"dx": dx})
    assert some.score == pytest.approx(1 / 3) and some.findings[1].wrong == "it is None"


def mute(*given):
    raise type("Mute", (Exception,), {"__str__": lambda self: 1 / 0})  # not even its text can be had


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
    values = [*WILD, *((value,) * len(item.outputs) for value in WILD)]
    if item.properties is None:
        shapes = [np.shape(a) for a in draws_of(item)[0].right.values()]
        values += [tuple(np.full(shape, number) for shape in shapes) for number in (np.nan, 1e200, 5e-324, 1j)]
    for function in (mute, noisy, *(lambda *given, value=value: value for value in values)):
        assert 0.0 <= getattr(check, name)(function) < 1.0
    assert capsys.readouterr().err == ""


def test_a_check_returns_a_number_and_prints_the_hint_but_not_the_formula(capsys):
    item = ITEMS["lora_backward"]

    def wrong(dy, x, W, A, B, s):
        noisy()
        return dy @ W, (dy @ B).T @ x, s * dy.T @ (x @ A.T)

    score = check.lora_backward(wrong, points=6)
    said = capsys.readouterr()
    assert score == 2.0 and repr(score) == "2.0" and score._repr_html_() == "" and said.err == ""
    assert item.hints["dx"] in said.out and "dx lacks the term du @ A" in said.out
    assert item.formula not in said.out
    for of, formula in (("lora_backward", item.formula), (merge, ITEMS["merge"].formula)):
        check.formula(of)
        assert formula in capsys.readouterr().out
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


FAILING = {  # words of the command, what it says, the notebook's cells
    "another output": (["--check"], "cell 1: stored 4; now 3", ["x = 2", "x + 1"]),
    "stderr": ([], "writes to stderr: 'no'", ["import sys; print('no', file=sys.stderr)"]),
    "an exception": ([], "ZeroDivisionError", ["1 / 0"]),
    "an odd cell": ([], "AttributeError", ["1"]),
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
    stored.cells[0].metadata.tags = ["hide-output"]
    notebooks.write_notebook(path, stored)
    assert classroom("execute", path)[0] == 0 and classroom("execute", "--check", path)[0] == 0
    folded = notebooks.read_notebook(path).cells[0]
    assert text(folded.outputs[0]) == notebooks.ANSWER + "2\n" and folded.metadata.jupyter == {"outputs_hidden": True}


@pytest.mark.slow
@pytest.mark.parametrize("words, said, cells", FAILING.values(), ids=FAILING)
def test_a_notebook_that_fails_is_left_alone_and_stops_no_other(tmp_path, words, said, cells):
    path, good, notebook = tmp_path / "a.ipynb", tmp_path / "good.ipynb", notebook_of(*cells)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "4"}, execution_count=2)]
    if said == "AttributeError":
        del notebook.cells[0]["cell_type"]  # nbformat reads it all the same
    path.write_text(json.dumps(notebook))
    notebooks.write_notebook(good, notebook_of("None"))
    before = path.read_bytes()
    code, told = classroom("execute", *words, path, good)
    assert code == 1 and said in told and "1 problems" in told and path.read_bytes() == before
    assert notebooks.read_notebook(good).cells[0].execution_count == (None if words else 1)


def test_folders_programs_and_anchors(tmp_path):
    links = {
        "[a](adapters/)": "[a](adapters/README.md)",
        "[b](../README.md#x)": "[b](../index.md#x)",
        "[c](micro.py)": "[c](micro.py.md)",
        "[d](https://x.org/y.py)": "[d](https://x.org/y.py)",
        "[e](nowhere/)": "e",
        "\n```\nx[0](y)\n```\n": "\n```\nx[0](y)\n```\n",
    }
    assert book.with_links("lora_np/README.md", " ".join(links), tmp_path) == " ".join(links.values())
    assert "def linear_backward" in (tmp_path / "lora_np" / "micro.py.md").read_text("utf-8")


def test_terms_and_papers_are_linked_in_running_text():
    """A paper's name everywhere, a glossary's term once; neither in headings and code, nor inside longer words."""
    core, nodes = pytest.importorskip("docutils.core"), pytest.importorskip("docutils.nodes")
    pytest.importorskip("sphinx")
    pages = {
        book_links.GLOSSARY: "Words\n=====\n\nRank\n----\n\nThe **rank** is small.\n\nr\n--\n\nA rank.\n",
        book_links.PAPERS: "Papers\n======\n\n- **Hu et al. 2021**: `LoRA <https://x.org/hu>`__\n",
        "a/page": "Rank\n====\n\nA ``rank``, rank-one, ranked.\n\nTwo Ranks. A rank. Hu et al.\n2021, Hu et al. 2021\n",
    }
    settings = {"doctitle_xform": False}  # a single heading becomes a section, as in MyST
    pages = {page: core.publish_doctree(text, settings_overrides=settings) for page, text in pages.items()}

    class App:
        get_doctree = pages.get
        get_relative_uri = staticmethod(lambda page, other: other)

    App.env = App.builder = App
    found = {}
    for page, doctree in pages.items():
        book_links.link_words(App, doctree, page)
        found[page] = [(link.astext(), link["refuri"]) for link in doctree.findall(nodes.reference)]
    assert found[book_links.PAPERS] == [("LoRA", "https://x.org/hu")]
    assert [words for words, _ in found[book_links.GLOSSARY]] == ["rank"]  # only in the other entry
    (words, address), *papers = found["a/page"]
    assert words == "Ranks" and address == f"{book_links.GLOSSARY}#rank"
    assert papers == [("Hu et al.\n2021", "https://x.org/hu"), ("Hu et al. 2021", "https://x.org/hu")]


def test_the_contents_mark_the_lessons_of_the_evening():
    notebook = json.dumps("# 00 · Start here\n\n| **Path** | 1 of 4 |\n", ensure_ascii=False)
    pages = {"notebooks/00_a.ipynb": notebook, "notebooks/01_b.ipynb": json.dumps("# 01 · Next\n")}
    assert "00 · Start here ● <notebooks/00_a>\nnotebooks/01_b\n" in book.contents(pages)


def test_a_slider_has_a_description_for_each_picture():
    Image = pytest.importorskip("PIL.Image")  # Matplotlib needs it as well
    file = io.BytesIO()
    frames = [Image.new("L", (2, 2), shade) for shade in (0, 90, 180)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": "<slider: rank r>"}
    book.with_slider(data, 'A line, "steep"')
    assert re.findall('alt="(.*?)"', data["text/html"])[1:] == [
        f"A line, &quot;steep&quot; (rank r: picture {i} of 3)" for i in (2, 3)
    ]
