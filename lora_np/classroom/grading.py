"""Grade submitted notebooks without nbgrader: run the students' cells and call their functions.

The students' cells run in a separate process that receives no worked solutions; the checks run in this process. Without
a sandbox, the separate process has all permissions of the user who starts it, so a malicious notebook can do harm.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .check import said
from .examine import Result, examined
from .exercise import GRADING, Failed
from .notebooks import read_notebook
from .release import mark, notebook_of
from .sets import read_sets
from .submissions import Process, Stopped

MEMORY_NOISE = 8_000_000  # bytes by which a process may grow for reasons other than the student's call


class Mark(NamedTuple):
    """The mark for one graded cell of a submission."""

    item: str  # the exercise, or the question's id
    score: float
    points: float
    said: str  # the check's text, the reason why there is none, or the written answer
    by_hand: bool = False  # whether the cell is a written answer, which a teacher must grade
    mistakes: tuple[str, ...] = ()  # descriptions of the incorrect outputs


class Graded(NamedTuple):
    notebook: str
    exercise: str  # name of the set
    marks: tuple[Mark, ...]

    @property
    def score(self):
        return float(sum(one.score for one in self.marks))

    @property
    def points(self):
        """The maximum total score of the items that are graded automatically."""
        return float(sum(one.points for one in self.marks if not one.by_hand))

    @property
    def to_read(self):
        """The maximum total score of the written answers, which a teacher grades."""
        return float(sum(one.points for one in self.marks if one.by_hand))


def grade(path, draw=GRADING, sandbox=False):
    """Grade one submission.

    Parameters
    ----------
    path : the submitted notebook
    draw : str, name of the draws: the same for a whole class, and a new one each term
    sandbox : bool, whether to run the notebook in a sandbox; see `submissions.py`

    Returns
    -------
    Graded

    Raises
    ------
    ValueError
        If the file is not a notebook, or belongs to none of the exercise sets.
    """
    submission = read_notebook(path)
    exercise_set = set_of(submission, path)
    outcomes = results(Path(path).resolve().parent, steps_of(submission, exercise_set), exercise_set, draw, sandbox)
    marks = [marked(exercise, *outcomes[exercise.name]) for exercise in exercise_set.exercises]
    answer = answer_in(submission, exercise_set)
    marks.append(Mark(exercise_set.question_id, 0.0, exercise_set.words, answer, by_hand=True))
    return Graded(str(path), exercise_set.name, tuple(marks))


def grade_all(paths, draw=GRADING, sandbox=False, jobs=2):
    """Grade several submissions in parallel. If one submission cannot be graded, the others still are.

    Yields
    ------
    (path, outcome) in the order of the paths; outcome: Graded, or a ValueError that explains why there is no grade
    """

    def one(path):
        try:
            return grade(path, draw, sandbox)
        except ValueError as error:
            return error
        except Exception as error:  # nbformat accepts some files that are not valid notebooks
            return ValueError(f"notebook: {path} cannot be graded ({type(error).__name__}: {error})")

    with ThreadPoolExecutor(jobs) as pool:
        yield from zip(paths, pool.map(one, paths))


# ---------------------------------------------------------------- the steps of a submission


def set_of(submission, path):
    """Return the exercise set to which a submission belongs: the one with which it shares the most cells."""
    ids = {mark(cell).get("grade_id") for cell in submission.cells} - {None}
    sets = list(read_sets().values())
    common = [len(ids & {exercise.name for exercise in exercise_set.exercises}) for exercise_set in sets]
    if not any(common):
        raise ValueError(
            f"notebook: {path} contains no graded cells from any of the {len(sets)} exercise sets. If the answers were "
            "copied to a new notebook, copy them back to the original, whose cells have the metadata that grading needs"
        )
    return sets[common.index(max(common))]


def steps_of(submission, exercise_set):
    """Return the grading steps, in order: ("run", id or None, source) and ("call", exercise's name, None).

    A check runs at the position of its cell in the notebook, or at the end if that cell is missing. Copies of a cell
    share its id: all copies of a function's cell run, but only the first copy of a check's cell.
    """
    checks = {f"check_{exercise.name}": exercise.name for exercise in exercise_set.exercises}
    steps, seen = [], set()
    for cell in submission.cells:
        id = mark(cell).get("grade_id")
        if id in checks:
            steps += [("call", checks[id], None)] if id not in seen else []
        elif cell.cell_type == "code" and id not in ("setup", "summary"):
            steps.append(("run", id, cell.source))
        seen.add(id)
    return steps + [("call", name, None) for id, name in checks.items() if id not in seen]


def results(folder, steps, exercise_set, draw, sandbox):
    """Run the steps; return a dict, exercise -> (Result, the error in the function's cell or None).

    If a step ends the process or does not terminate, all other steps run again without it, so that only exercises that
    depend on it lose points.
    """
    left_out, exercises = {}, {exercise.name: exercise for exercise in exercise_set.exercises}
    while True:
        outcomes, errors = {}, {}
        with Process(folder, sandbox) as process:
            for number, (kind, name, source) in enumerate(steps):
                try:
                    if number in left_out:
                        raise Failed(left_out[number])
                    if kind == "run":
                        errors.setdefault(name, process.ask({"run": source}).get("error"))
                    else:
                        outcomes[name] = result(process, exercises[name], draw)
                except Stopped as stopped:
                    left_out[number] = f"{stopped}; everything else was run without it"
                    break
                except Exception as error:  # depends on the student's answer
                    unread = f"its return value cannot be read ({error!r:.100})"
                    said = str(error) if isinstance(error, Failed) else unread
                    if kind == "run":
                        errors.setdefault(name, said)
                    else:
                        outcomes[name] = Result(0.0, (), said)
            else:
                return {name: (outcomes[name], errors.get(name)) for name in exercises}


def result(process, exercise, draw):
    """Check a student's function, which runs in `process`; return a Result."""

    def call(inputs, measure=False):
        if not measure or (before := process.peak(reset=True)) is None:
            return process.call(exercise, inputs, measure)
        returned, inputs_after, held = process.call(exercise, inputs, measure)
        return returned, inputs_after, max(held, process.peak() - before - MEMORY_NOISE)

    return examined(exercise, call, draw)


def marked(exercise, result, error):
    """Return the Mark for an exercise, given its Result and the error in the function's cell (or None)."""
    score, points = exercise.points * result.score, float(exercise.points)
    if result.failed and error:
        return Mark(exercise.name, 0.0, points, f"your cell: {error}", mistakes=(error,))
    wrong = [finding for finding in result.findings if finding.wrong]
    mistakes = [result.failed] if result.failed else [mistake(f.output, (*f.looks_like, f.wrong)[0]) for f in wrong]
    return Mark(exercise.name, score, points, said(result, exercise, score, exercise.points), mistakes=tuple(mistakes))


def mistake(output, sentence):
    return sentence if sentence.startswith(f"{output} ") else f"{output}: {sentence}"


def answer_in(submission, exercise_set):
    """Return the student's written answer, without the cell's original text."""
    cells = []
    for notebook in (submission, notebook_of(exercise_set, "student")):
        cells.append(next((c for c in notebook.cells if mark(c).get("grade_id") == exercise_set.question_id), None))
    answered, blank = cells
    if answered is None:
        return "the answer is missing"
    original = set(blank.source.split("\n"))
    answer = "\n".join(line for line in answered.source.split("\n") if line not in original).strip()
    return answer or "not answered"
