"""Examine a student's function, possibly in another process, on random float64 inputs of several sizes.

The criteria, in order: the function runs, its inputs are unchanged, its outputs have the expected shapes and dtypes,
all their values are finite, and each output is correct.
"""

import contextlib
import copy
import io
import warnings
from fractions import Fraction
from numbers import Real
from typing import NamedTuple

import numpy as np

from ..ops.numerical_gradient import relative_error
from .diagnosis import exchanged, suspects
from .exercise import PRACTICE, Failed, Sizes, Unfit, complete, draws_of, equal, finite_pair, generator, named_outputs
from .runner import encode, in_plain_words, in_words, peak_of, shown, what_was_raised

WHOLE = 1e-9  # tolerance for integers that were computed by division


class Finding(NamedTuple):
    """The result of checking one output."""

    output: str
    wrong: str | None  # the complaint; None if the output is correct
    looks_like: tuple[str, ...] = ()
    hint: str | None = None


class Problem(NamedTuple):
    """A reason why an output cannot be compared."""

    said: str
    hint: bool = False  # whether a hint about the mathematics may help


class Result(NamedTuple):
    score: float  # the share of correct outputs, from 0 to 1
    findings: tuple[Finding, ...]
    failed: str | None = None  # if not None, the reason why the function as a whole fails


def examine(exercise, function, draw=PRACTICE):
    """Check a function against an exercise.

    Parameters
    ----------
    exercise : Exercise
    function : the student's function
    draw : str, name of the draws; it seeds their random inputs

    Returns
    -------
    Result

    Notes
    -----
    No exception other than KeyboardInterrupt is raised. Nothing is written to stderr, because nbgrader gives no points
    for a cell that writes to it.
    """
    if not callable(function):
        return Result(0.0, (), f"got {type(function).__name__}, expected the function itself")

    def call(inputs, measure=False):
        given = copy.deepcopy(inputs)
        try:
            returned, peak = peak_of(function, given.values()) if measure else (function(*given.values()), 0)
            return returned, given, peak
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # including SystemExit
            of = f"{exercise.name}({', '.join(inputs)})"
            raise Failed(what_was_raised(error, function, of)) from None

    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return examined(exercise, call, draw)


def examined(exercise, call, draw):
    """Check a function that is called indirectly, for example in another process.

    Parameters
    ----------
    exercise : Exercise
    call : function (inputs, measure=False) that returns the student's result, the inputs after the call, and, if it is
        measured, the call's peak memory in bytes, or raises Failed
    draw : str, name of the draws

    Returns
    -------
    Result
    """
    drawn = draws_of(exercise, draw)
    try:
        result = judge(exercise, drawn, [observe(exercise, call, i) for i in drawn])
        if exercise.large and result.score:
            check_large(exercise, call, draw, [finding.output for finding in result.findings if not finding.wrong])
    except Failed as failed:
        return Result(0.0, (), str(failed))
    return result


def observe(exercise, call, i, measure=False):
    """Call a student's function for one draw; return its outputs by name, or raise Failed."""
    returned, i.given, i.peak = call(i.inputs, measure)
    outputs = named_outputs(exercise, returned)
    changed = [name for name, value in i.inputs.items() if not unchanged(value, i.given.get(name))]
    if changed:
        raise Failed(f"it modifies {' and '.join(changed)} in place: store results in a new array")
    i.also = {name: named_outputs(exercise, call(i.inputs | others)[0]) for name, others in exercise.also(i).items()}
    return outputs


def check_large(exercise, call, draw, names):
    """Raise Failed unless the named outputs are right for large inputs too, within the memory that is allowed."""
    rng = generator(draw, "large", exercise.name)
    size = Sizes(rng, 0)
    inputs, most, said = exercise.large(rng, size)
    i = complete(exercise, inputs, size)
    try:
        outputs = observe(exercise, call, i, measure=True)
    except Failed as failed:
        raise Failed(f"with large inputs, {failed}") from None
    if i.peak > most:
        raise Failed(f"{said} (its peak memory is {i.peak / 1e6:.2g} MB; {most / 1e6:.2g} MB is enough)")
    try:
        outputs = exercise.compared(i, {name: np.asarray(as_numbers(value)) for name, value in outputs.items()})
        wrong = [name for name in names if not is_right(np.asarray(outputs[name]), i, name)]
    except Exception:  # the student may return any value
        wrong = names
    if wrong:
        raise Failed(f"with large inputs, {' and '.join(wrong)} is incorrect")


def unchanged(before, after):
    """Whether an input has the same value as before a call; a random generator may have been used."""
    try:
        return isinstance(before, np.random.Generator) or encode(before) == encode(after)
    except RecursionError:  # a list or dict that has been put into itself
        return False


# ---------------------------------------------------------------- the findings


def judge(exercise, drawn, observed):
    """Return the Result: for each output, the first complaint in any draw, or none if it is always correct."""
    if exercise.properties is not None:
        findings = [property_findings(exercise, i, outputs) for i, outputs in zip(drawn, observed)]
    else:
        findings = compared_findings(exercise, drawn, observed)
    verdicts = [next((f for f in of_output if f.wrong), of_output[0]) for of_output in zip(*findings)]
    return Result(sum(f.wrong is None for f in verdicts) / len(verdicts), tuple(verdicts))


def property_findings(exercise, i, outputs):
    forms = {name: kind_problem(value) for name, value in outputs.items()}
    try:
        verdicts = exercise.properties(i, outputs)
    except Exception as error:  # the student may return any value
        unread = f"the returned value cannot be read ({in_plain_words(error)})"
        verdicts = {name: forms.get(name) or unread for name in exercise.hints}
    hints = {name: None if forms.get(name) else exercise.hints.get(name) for name in verdicts}
    return [Finding(name, wrong, (), hints[name] if wrong else None) for name, wrong in verdicts.items()]


def compared_findings(exercise, drawn, observed):
    """Return the findings of each draw. A suspected mistake must explain all draws in which the output is incorrect."""
    checked = []
    for i, outputs in zip(drawn, observed):
        outputs = {name: as_numbers(value) for name, value in outputs.items()}
        forms = {name: form_problem(value, i.right.get(name)) for name, value in outputs.items()}
        returned = {name: None if kind_problem(value) else np.asarray(value) for name, value in outputs.items()}
        try:
            arrays = exercise.compared(i, returned)
        except Exception as error:  # the student may return any value
            arrays, reason = dict.fromkeys(i.right), Problem(why_not_comparable(error, returned), hint=True)
            forms = {name: forms.get(name) or reason for name in i.right}
        checked.append((i, arrays, forms))
    return [[finding(exercise, name, *of_draw, checked) for name in of_draw[0].right] for of_draw in checked]


def why_not_comparable(error, returned):
    if isinstance(error, Unfit):
        return str(error)
    if any(value is None for value in returned.values()):
        return "it is computed from an output that is not an array of numbers"
    shapes = ", ".join(f"{name} {value.shape}" for name, value in returned.items())
    return f"the shapes of the returned arrays do not match: {shapes}"


def finding(exercise, name, i, arrays, forms, checked):
    right, hint = np.asarray(i.right[name]), exercise.hints.get(name)
    problem = forms.get(name) or form_problem(arrays[name], right)
    if problem:
        looks_like = () if kind_problem(arrays[name]) else exchanged(exercise, name, i, np.asarray(arrays[name]))
        return Finding(name, problem.said, looks_like, hint if problem.hint else None)
    got = np.asarray(arrays[name])
    if is_right(got, i, name):
        return Finding(name, None)
    return Finding(name, not_finite(got, right) or how_far(i, got, right), suspects(exercise, name, checked), hint)


def is_right(got, i, name):
    """Whether an array is correct up to a small relative error in norm; non-finite entries must be identical."""
    right = np.asarray(i.right[name])
    if right.dtype.kind in "iub":
        return bool(np.array_equal(np.rint(got) if got.dtype.kind == "f" else got, right))
    return equal(got, right, i.rounding[name])


def as_numbers(value):
    """Convert fractions and integers of any size, alone or in an array, to numbers that NumPy can handle."""
    with contextlib.suppress(Exception):  # arrays of other packages, or numbers above 1e308
        if isinstance(value, Real) and not isinstance(value, float | np.generic | bool):
            return int(value) if value == int(value) and abs(value) < 2**63 else float(value)
        array = np.asarray(value)
        if array.dtype == object and all(isinstance(x, Real | Fraction) for x in array.flat):
            return array.astype(np.float64)
    return value


def kind_problem(value):
    """Return a complaint if an output does not consist of real numbers, else None."""
    if value is None:
        return "it is None"
    try:
        array = np.asarray(value)
    except Exception:  # arrays of different shapes in a tuple or list; arrays of other packages
        many = f" of {len(value)} arrays" if isinstance(value, tuple | list) else ""
        return f"it is a {type(value).__name__}{many}, expected one array of numbers"
    if array.dtype.kind == "c":
        return "it consists of complex numbers, expected real ones"
    if isinstance(value, Real) and array.dtype == object:
        return "its magnitude is above 1e308"
    if array.dtype.kind not in "iufb":
        what = f"an array of dtype {array.dtype}" if isinstance(value, np.ndarray) else in_words(value)
        return f"it is {what}, expected numbers"
    return None


def form_problem(value, right):
    """Return the Problem with an output's kind, shape, dtype or values, or None if there is none."""
    problem = kind_problem(value)
    if problem:
        return Problem(problem)
    if right is None:
        return None
    array, right = np.asarray(value), np.asarray(right)
    if array.shape != right.shape:
        if isinstance(value, tuple):
            return Problem(f"it is a tuple of {len(value)} values, expected one array of shape {right.shape}")
        turned = " (it is transposed)" if array.ndim == 2 and array.shape == right.shape[::-1] else ""
        return Problem(f"it has shape {array.shape}, expected {right.shape}{turned}", hint=True)
    if right.dtype.kind == "f" and array.ndim and array.dtype.kind != "f":
        return Problem(f"it has dtype {array.dtype}, expected {right.dtype}, like the inputs")
    kinds = right.dtype.kind + array.dtype.kind
    if kinds == "if" and not np.allclose(array, np.rint(array), WHOLE, WHOLE, equal_nan=True):
        said = f"it is {float(array):.6g}" if array.ndim == 0 else "it has values that are not integers"
        return Problem(f"{said}, expected {'an integer' if array.ndim == 0 else 'integers'}", hint=True)
    return None


def not_finite(got, right):
    """Return a complaint if entries that should be finite are not, else None."""
    wild = np.isfinite(right) & ~np.isfinite(got)
    if wild.any():
        cause = "infinity: an exponential of a large number, a division by 0, or the logarithm of 0"
        if np.isnan(got[wild]).any():
            cause = "NaN: 0/0, ∞/∞, ∞ − ∞, 0 · ∞, a NaN in the inputs, or the root or logarithm of a negative number"
        return f"it is not finite ({cause}) in {wild.sum()} of {got.size} entries"
    return None


def how_far(i, got, right):
    """Describe an incorrect output: by its value if it is a single number, by the number of incorrect entries if they
    are integers, else by its relative error."""
    if right.ndim == 0:
        numbers = all(isinstance(value, int | float) for value in i.inputs.values())
        given = ", ".join(f"{name} = {shown(value)}" for name, value in i.inputs.items() if numbers)
        return f"for {given} it is {shown(got)}" if given else f"it is {shown(got)}"
    if right.dtype.kind in "iub":
        return f"{np.sum(np.rint(got) != right)} of {right.size} entries are incorrect"
    got, right = got.astype(np.float64), right.astype(np.float64)
    if not np.array_equal(got[~np.isfinite(right)], right[~np.isfinite(right)], equal_nan=True):
        return "an entry that should be infinite is incorrect"
    return f"relative error {relative_error(*finite_pair(got, right)):.1e}"
