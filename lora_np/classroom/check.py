"""The checks that a notebook calls, one function for each exercise: `check.lora_backward(my_function)`.

Each check prints its findings, with a hint for each incorrect output, and returns the score.
`check.formula("lora_backward")` prints the formula. `check.record()` returns the latest result of each exercise, and
`check.save(path)` writes these results to a file.
"""

import math
import os
from difflib import get_close_matches
from numbers import Real

from ..formats import write_json
from .examine import examine
from .exercise import PRACTICE
from .sets import read_sets

ITEMS = {exercise.name: exercise for of in read_sets().values() for exercise in of.exercises}
DRAW_VARIABLE = "LORA_NP_DRAW"  # environment variable that names the draws; nbgrader's configuration sets it
_RECORD = {}  # item -> its latest result, as JSON types


class Score(float):
    """A float that nbgrader can read. Jupyter does not display it, because the check has already printed the score."""

    def _repr_html_(self):
        return ""


def checker(item):
    """Return an exercise's check: a function that examines a student's function."""

    def check(function, points=1.0):
        if isinstance(points, bool) or not isinstance(points, Real) or not 0 <= points < math.inf:
            raise ValueError(f"points: got {points!r}, expected a number of at least 0")
        result = examine(item, function, os.environ.get(DRAW_VARIABLE, PRACTICE))
        _RECORD[item.name] = entry = as_record(result, points)
        print(said(result, item, entry["score"], points))
        return Score(entry["score"])

    check.__name__ = check.__qualname__ = item.name
    check.__doc__ = f"""{item.heading}

    Parameters
    ----------
    function : your {item.name}({", ".join(item.arguments)}), which returns {", ".join(item.outputs)}
    points : float, the points for a function whose outputs are all correct

    Returns
    -------
    float, `points` times the fraction of outputs that are correct
    """
    return check


def said(result, item, score, points):
    """Format a result as the text that a check prints."""
    head = f"{item.name}: {score:.3g} of {points:g} point{'s' * (points != 1)}"
    if result.failed:
        return f"{head}\n  {result.failed}"
    lines = [head]
    width = max(len(finding.output) for finding in result.findings)
    for finding in result.findings:
        lines.append(f"  {finding.output:<{width}}  {'right' if finding.wrong is None else 'wrong: ' + finding.wrong}")
        space = " " * (width + 4)
        lines += [f"{space}what it looks like: {sentence}" for sentence in finding.looks_like]
        if finding.hint:
            lines.append(f"{space}hint: {finding.hint}")
    if result.score < 1.0:
        lines.append(f"  (the formula, if you want it: check.formula({item.name!r}))")
    return "\n".join(lines)


def as_record(result, points):
    return {
        "score": float(points) * result.score,
        "points": float(points),
        "failed": result.failed,
        "outputs": {f.output: {"wrong": f.wrong, "looks_like": list(f.looks_like)} for f in result.findings},
    }


def formula(name):
    """Print an exercise's formula, given the exercise's name or your function of that name."""
    name = getattr(name, "__name__", name)
    if name not in ITEMS:
        near = get_close_matches(str(name), ITEMS, n=3, cutoff=0.4)
        expected = f"the name of a check, such as {', '.join(near)}" if near else "the name of a check"
        raise ValueError(f"name: got {name!r}, expected {expected}")
    print(ITEMS[name].formula)


def record():
    """Return the latest result of each exercise, as a dict, name -> {"score", "points", "failed", "outputs"}."""
    return dict(_RECORD)


def summary():
    """Print the scores so far, and return their sum divided by the total points of the exercises that were checked."""
    points = sum(entry["points"] for entry in _RECORD.values())
    for name, entry in _RECORD.items():
        print(f"{name:<28}{entry['score']:6.3g} of {entry['points']:g}")
    reached = sum(entry["score"] for entry in _RECORD.values())
    print(f"{'total':<28}{reached:6.3g} of {points:g}")
    return float(reached / points) if points else 0.0


def save(path):
    """Write the recorded results as JSON."""
    write_json(path, record())


globals().update({name: checker(item) for name, item in ITEMS.items()})
__all__ = [*ITEMS, "formula", "record", "save", "summary"]
