"""Grade submitted notebooks without nbgrader: run what students wrote, and call their functions.

Only the students' own cells run, in a process that knows no right answer; the checks are here. Without a sandbox the
process has all the rights of whoever starts it, so that a notebook can do harm.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .check import said
from .examine import Failed, Result, examined
from .exercise import GRADING
from .notebooks import read_notebook
from .release import mark, notebook_of
from .sets import read_sets
from .submissions import Process, Stopped

MEMORY_NOISE = 8_000_000  # bytes by which a process grows for other reasons


class Mark(NamedTuple):
    """One graded cell of a submission."""

    item: str  # the exercise, or the question's id
    score: float
    points: float
    said: str  # what the check says, or why there is nothing; an answer in words
    by_hand: bool = False  # an answer in words, which a teacher has to read
    mistakes: tuple[str, ...] = ()  # what the wrong outputs look like


class Graded(NamedTuple):
    notebook: str
    exercise: str  # the name of the set
    marks: tuple[Mark, ...]

    @property
    def score(self):
        return float(sum(one.score for one in self.marks))

    @property
    def points(self):
        """Of all items that a program can grade."""
        return float(sum(one.points for one in self.marks if not one.by_hand))

    @property
    def to_read(self):
        """Points of the answers in words, which a teacher gives."""
        return float(sum(one.points for one in self.marks if one.by_hand))


def grade(path, draw=GRADING, sandbox=False):
    """Grade one submission.

    Parameters
    ----------
    path : of the submitted notebook
    draw : str, which inputs are drawn: the same for a class, and a new name for a new term
    sandbox : bool, run it in a sandbox; see `submissions.py`

    Returns
    -------
    Graded

    Raises
    ------
    ValueError
        If the file is no notebook, or of none of the sets.
    """
    submission = read_notebook(path)
    of = set_of(submission, path)
    found = results(Path(path).resolve().parent, steps_of(submission, of), of, draw, sandbox)
    marks = [marked(exercise, *found[exercise.name]) for exercise in of.exercises]
    return Graded(
        str(path), of.name, (*marks, Mark(of.question_id, 0.0, of.words, answer_in(submission, of), by_hand=True))
    )


def grade_all(paths, draw=GRADING, sandbox=False, jobs=2):
    """Grade several, side by side; one that cannot be graded does not keep the others from it.

    Yields
    ------
    path, Graded or the error that says why not, in the order of the paths, each as soon as it is there
    """

    def one(path):
        try:
            return grade(path, draw, sandbox)
        except ValueError as error:
            return error
        except Exception as error:  # nbformat reads what has almost the form of a notebook
            return ValueError(f"notebook: {path} cannot be graded ({type(error).__name__}: {error})")

    with ThreadPoolExecutor(jobs) as pool:
        yield from zip(paths, pool.map(one, paths))


# ---------------------------------------------------------------- what is run


def set_of(submission, path):
    """The set that a submission was made from: the one with the most cells in common."""
    ids = {mark(cell).get("grade_id") for cell in submission.cells} - {None}
    sets = list(read_sets().values())
    common = [len(ids & {exercise.name for exercise in of.exercises}) for of in sets]
    if not any(common):
        raise ValueError(
            f"notebook: {path} has none of the graded cells of the {len(sets)} sets. If the answers were copied to "
            "a new notebook, copy them back into the one that was handed out: it knows its cells by their metadata"
        )
    return sets[common.index(max(common))]


def steps_of(submission, of):
    """What is done, in order: ("run", id or None, source) and ("call", exercise's name, None).

    A check comes where its cell is, or last where the cell is missing. Of several cells with one id, as copying makes
    them, the first counts as the check or the function; the others are run as any cell.
    """
    checks = {f"check_{exercise.name}": exercise.name for exercise in of.exercises}
    steps, seen = [], set()
    for cell in submission.cells:
        id = mark(cell).get("grade_id")
        if id in checks:
            steps += [("call", checks[id], None)] if id not in seen else []
        elif cell.cell_type == "code" and id not in ("setup", "summary"):
            steps.append(("run", id, cell.source))
        seen.add(id)
    return steps + [("call", name, None) for id, name in checks.items() if id not in seen]


def results(folder, steps, of, draw, sandbox):
    """Exercise -> (Result, what went wrong in the cell of the function, or None).

    A step that ends the process, or does not end itself, is left out, and all is run again without it: it costs what
    depends on it and nothing else.
    """
    left_out, exercises = {}, {exercise.name: exercise for exercise in of.exercises}
    while True:
        found, errors = {}, {}
        with Process(folder, sandbox) as process:
            for number, (kind, name, source) in enumerate(steps):
                try:
                    if number in left_out:
                        raise Failed(left_out[number])
                    if kind == "run":
                        errors.setdefault(name, process.ask({"run": source}).get("error"))
                    else:
                        found[name] = result(process, exercises[name], draw)
                except Failed as failed:
                    if kind == "run":
                        errors.setdefault(name, str(failed))
                    else:
                        found[name] = Result(0.0, (), str(failed))
                except Stopped as stopped:
                    left_out[number] = f"{stopped}; all else was run without it"
                    break
            else:
                return {name: (found[name], errors.get(name)) for name in exercises}


def result(process, exercise, draw):
    """The Result of a function in a process."""
    return examined(exercise, process.call(exercise), partial(peak, process, exercise), draw)


def peak(process, exercise, inputs):
    """The most bytes that a call has held; in a sandbox they are measured from outside as well."""
    process.forget_peak()
    before = process.peak()
    held, _ = process.call(exercise, measure=True)(inputs)
    return max(held, process.peak() - before - MEMORY_NOISE) if before is not None else held


def marked(exercise, result, error):
    """The mark of an exercise, from what its check found and what its cell raised."""
    score, points = exercise.points * result.score, float(exercise.points)
    if result.failed and error:
        return Mark(exercise.name, 0.0, points, f"your cell: {error}", mistakes=(error,))
    wrong = [finding for finding in result.findings if finding.wrong]
    mistakes = [result.failed] if result.failed else [mistake(f.output, (*f.looks_like, f.wrong)[0]) for f in wrong]
    return Mark(exercise.name, score, points, said(result, exercise, score, exercise.points), mistakes=tuple(mistakes))


def mistake(output, sentence):
    return sentence if sentence.startswith(f"{output} ") else f"{output}: {sentence}"


def answer_in(submission, of):
    """What a student wrote in words, without what stood there before."""
    cell = next((cell for cell in submission.cells if mark(cell).get("grade_id") == of.question_id), None)
    if cell is None:
        return "the answer is missing"
    blank = next(c for c in notebook_of(of, "student").cells if mark(c).get("grade_id") == of.question_id)
    given = set(blank.source.split("\n"))
    answer = "\n".join(line for line in cell.source.split("\n") if line not in given).strip()
    return answer or "not answered"
