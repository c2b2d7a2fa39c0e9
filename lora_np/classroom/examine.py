"""Examine a student's function: in order, does it run, does it leave its inputs alone, are shape and dtype right, is
everything finite, and is each output right, on random inputs in float64 of several sizes. The function may be in
another process.
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
from .diagnosis import equal, exchanged, suspects
from .exercise import PRACTICE, Unfit, draws_of, generator, named_outputs, sizes
from .runner import in_words, peak_of, what_was_raised

WHOLE = 1e-9  # how far a whole number may be off that was computed by division


class Finding(NamedTuple):
    """What was found of one output."""

    output: str
    wrong: str | None  # what is wrong; None: it is right
    looks_like: tuple[str, ...] = ()
    hint: str | None = None


class Problem(NamedTuple):
    """What keeps an output from being compared."""

    said: str
    hint: bool = False  # whether a hint at the mathematics may help


class Result(NamedTuple):
    score: float  # the share of the outputs that are right, a plain float from 0 to 1
    findings: tuple[Finding, ...]
    failed: str | None = None  # why there are no outputs to look at, or why none counts


class Failed(Exception):
    """A student's function that gives nothing to look at; the text says why."""


def examine(exercise, function, draw=PRACTICE):
    """Check a function against an exercise.

    Parameters
    ----------
    exercise : Exercise
    function : the student's
    draw : str, which inputs: another name gives others

    Returns
    -------
    Result; whatever the function does or returns, nothing is raised but KeyboardInterrupt, and nothing goes to stderr:
    graders give nothing for a cell that writes there
    """
    if not callable(function):
        return Result(0.0, (), f"got {type(function).__name__}, expected the function itself")

    def call(inputs):
        given = copy.deepcopy(inputs)
        try:
            return function(*given.values()), given
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also a SystemExit of its own
            of = f"{exercise.name}({', '.join(inputs)})"
            raise Failed(what_was_raised(error, function, of)) from None

    def peak(inputs):
        try:
            return peak_of(function, copy.deepcopy(inputs).values())[1]
        except Exception as error:
            raise Failed(type(error).__name__) from None

    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return examined(exercise, call, peak, draw)


def examined(exercise, call, peak, draw):
    """What is found of a function that is somewhere else.

    Parameters
    ----------
    exercise : Exercise
    call : function of inputs -> what the student's function returns, and the inputs after the call. Raises Failed
    peak : function of inputs -> the most bytes that the student's function has held at once. Raises Failed
    draw : str
    """
    drawn = draws_of(exercise, draw)
    try:
        result = judge(exercise, drawn, [observe(exercise, call, i) for i in drawn])
        wasteful = what_is_wasted(exercise, peak, draw) if exercise.large and result.score else None
    except Failed as failed:
        return Result(0.0, (), str(failed))
    return Result(0.0, (), wasteful) if wasteful else result


def observe(exercise, call, i):
    """What a student's function returns for one draw, by the outputs' names; raises Failed."""
    returned, i.given = call(i.inputs)
    outputs = named(exercise, returned)
    changed = [name for name, value in i.inputs.items() if not same(value, i.given[name])]
    if changed:
        raise Failed(f"it changes its argument {' and '.join(changed)}: compute into a new array")
    i.also = {name: named(exercise, call(i.inputs | others)[0]) for name, others in exercise.also(i).items()}
    return outputs


def named(exercise, returned):
    try:
        return named_outputs(exercise, returned)
    except ValueError as error:
        raise Failed(str(error)) from None


def what_is_wasted(exercise, peak, draw):
    """What is wrong if a call holds more memory than the exercise allows, or None."""
    rng = generator(draw, "large", exercise.name)
    inputs, most, said = exercise.large(rng, sizes(rng, 0))
    try:
        held = peak(inputs)
    except Failed:  # it has done so much for small ones
        return None
    return f"{said} (it holds {held / 1e6:.2g} MB at once, {most / 1e6:.2g} MB are enough)" if held > most else None


def same(one, two):
    """Whether a value is still what it was; arrays inside lists and dicts too."""
    if isinstance(one, dict):
        return isinstance(two, dict) and list(one) == list(two) and all(same(one[k], two[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two))
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.dtype == two.dtype and np.array_equal(one, two, equal_nan=True)
    return True if callable(one) or isinstance(one, np.random.Generator) else one == two


# ---------------------------------------------------------------- the findings


def judge(exercise, drawn, observed):
    """What was found of a function that has returned something for each draw, a dict of outputs."""
    if exercise.properties is not None:
        return result_of([property_findings(exercise, i, outputs) for i, outputs in zip(drawn, observed)])
    return result_of(compared_findings(exercise, drawn, observed))


def result_of(findings_of_draws):
    """An output is right if it is in every draw; the first draw's complaint is the one that is told."""
    found = []
    for findings in zip(*findings_of_draws):
        found.append(next((finding for finding in findings if finding.wrong), findings[0]))
    return Result(sum(f.wrong is None for f in found) / len(found), tuple(found))


def property_findings(exercise, i, outputs):
    forms = {name: kind_problem(value) for name, value in outputs.items()}
    try:
        found = exercise.properties(i, outputs)
    except Exception as error:  # whatever the outputs are that it could not read
        unread = f"what is returned cannot be read ({type(error).__name__}: {error})"
        found = {name: forms.get(name) or unread for name in exercise.hints}
    hints = {name: None if forms.get(name) else exercise.hints.get(name) for name in found}
    return [Finding(name, wrong, (), hints[name] if wrong else None) for name, wrong in found.items()]


def compared_findings(exercise, drawn, observed):
    """For each draw its findings; what an output looks like is what it looks like in every draw that is wrong."""
    checked = []
    for i, outputs in zip(drawn, observed):
        outputs = {name: as_numbers(value) for name, value in outputs.items()}
        forms = {name: form_problem(value, i.right.get(name)) for name, value in outputs.items()}
        given = {name: None if kind_problem(value) else np.asarray(value) for name, value in outputs.items()}
        try:
            arrays = exercise.compared(i, given)
        except Exception as error:  # whatever the outputs are that it could not compare
            arrays, reason = dict.fromkeys(i.right), Problem(why_not_comparable(error, given), hint=True)
            forms = {name: forms.get(name) or reason for name in i.right}
        checked.append((i, arrays, forms))
    findings = []
    for i, arrays, forms in checked:
        findings.append([finding(exercise, name, i, arrays, forms, checked) for name in i.right])
    return findings


def why_not_comparable(error, given):
    if isinstance(error, Unfit):
        return str(error)
    if any(value is None for value in given.values()):
        return "it goes with an output that is no array of numbers"
    shapes = ", ".join(f"{name} {value.shape}" for name, value in given.items())
    return f"the shapes of what is returned do not fit each other: {shapes}"


def finding(exercise, name, i, arrays, forms, checked):
    right, hint = np.asarray(i.right[name]), exercise.hints.get(name)
    problem = forms.get(name) or form_problem(arrays[name], right)
    if problem:
        looks_like = () if kind_problem(arrays[name]) else exchanged(exercise, name, i, np.asarray(arrays[name]))
        return Finding(name, problem.said, looks_like, hint if problem.hint else None)
    got = np.asarray(arrays[name])
    if is_right(got, i, name):
        return Finding(name, None)
    looks_like = suspects(exercise, name, [(i, None if f.get(name) else a[name]) for i, a, f in checked])
    return Finding(name, how_far(exercise, i, got, right), looks_like, hint)


def is_right(got, i, name):
    """Whether an array is the right one, except for rounding, in norm; what is not finite has to be the same."""
    right = np.asarray(i.right[name])
    if right.dtype.kind in "iub":
        return bool(np.array_equal(np.rint(got) if got.dtype.kind == "f" else got, right))
    return equal(got, right, i.rounding[name])


def as_numbers(value):
    """Fractions and whole numbers of any size as floats, alone or in an array."""
    array = None
    if isinstance(value, Real) and not isinstance(value, float | np.generic | bool):
        return int(value) if value == int(value) and abs(value) < 2**63 else float(value)
    with contextlib.suppress(Exception):
        array = np.asarray(value)
    if array is not None and array.dtype == object and all(isinstance(x, Real | Fraction) for x in array.flat):
        return array.astype(np.float64)
    return value


def kind_problem(value):
    """What is wrong with an output that is not made of real numbers; None if it is."""
    if value is None:
        return "it is None"
    try:
        array = np.asarray(value)
    except Exception:  # arrays of several shapes in one tuple or list; other packages' own arrays
        many = f" of {len(value)} arrays" if isinstance(value, tuple | list) else ""
        return f"it is a {type(value).__name__}{many}, expected one array of numbers"
    if array.dtype.kind == "c":
        return "it is made of complex numbers, expected real ones"
    if array.dtype.kind not in "iufb":
        what = f"an array of dtype {array.dtype}" if isinstance(value, np.ndarray) else in_words(value)
        return f"it is {what}, expected numbers"
    return None


def form_problem(value, right):
    """What is wrong with the kind, shape or dtype of an output, as a Problem; None if nothing is."""
    problem = kind_problem(value)
    if problem:
        return Problem(problem)
    if right is None:
        return None
    array, right = np.asarray(value), np.asarray(right)
    if array.shape != right.shape:
        if isinstance(value, tuple):
            return Problem(f"it is a tuple of {len(value)}, expected one array of shape {right.shape}")
        turned = " (it is transposed)" if array.ndim == 2 and array.shape == right.shape[::-1] else ""
        return Problem(f"it has shape {array.shape}, expected {right.shape}{turned}", hint=True)
    if right.dtype.kind == "f" and array.ndim and array.dtype.kind != "f":
        return Problem(f"it has dtype {array.dtype}, expected {right.dtype}, the inputs' own")
    wild = np.isfinite(right) & ~np.isfinite(array)
    if wild.any():
        return Problem(f"it is {of_what(array[wild])} in {wild.sum()} of {array.size} places", hint=True)
    if right.dtype.kind == "i" and array.dtype.kind == "f" and not np.allclose(array, np.rint(array), WHOLE, WHOLE):
        said = f"it is {float(array):.6g}" if array.ndim == 0 else "it has numbers that are not whole"
        return Problem(f"{said}, expected {'a whole number' if array.ndim == 0 else 'whole numbers'}", hint=True)
    return None


def of_what(values):
    """What comes where a number should be, and what it often comes from."""
    if np.isnan(values).any():
        return "not finite (NaN: 0/0, ∞ − ∞ or 0 · ∞)"
    return "not finite (infinity: an exponential of a large number, or a division by 0)"


def how_far(exercise, i, got, right):
    """How far off, for an eye that may know the number."""
    got, right = got.astype(np.float64), right.astype(np.float64)
    if right.ndim == 0:
        if all(isinstance(value, int | float) for value in i.inputs.values()):
            return f"for {', '.join(f'{name} = {value:g}' for name, value in i.inputs.items())} it is {float(got):.6g}"
        return f"it is {float(got):.6g}"
    if not np.array_equal(got[~np.isfinite(right)], right[~np.isfinite(right)], equal_nan=True):
        return "infinity is not where it should be"
    keep = np.isfinite(right)
    return f"relative error {relative_error(got[keep], right[keep]):.1e}"
