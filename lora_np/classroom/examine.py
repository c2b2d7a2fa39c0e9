"""Examine a student's function: in order, does it run, does it leave its inputs alone, are shape and dtype right, is
everything finite, and is each output right, on random inputs in float64, from two seeds and with two sets of sizes."""

import contextlib
import io
import traceback
import warnings
from typing import NamedTuple

import numpy as np

from ..ops.numerical_gradient import relative_error
from .diagnosis import exchanged, same_values, suspects
from .item import SIZES, Unfit, draw_inputs, kind_of, named_outputs

ROUNDED = 1e-5  # relative, in norm: right, but for the rounding of float32


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


def examine(item, function):
    """Check a function against an item.

    Parameters
    ----------
    item : Item
    function : the student's

    Returns
    -------
    Result; whatever the function does or returns, nothing is raised but KeyboardInterrupt, and nothing goes to stderr:
    graders give nothing for a cell that writes there
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return examined(item, function)


def examined(item, function):
    if not callable(function):
        return Result(0.0, (), f"got {type(function).__name__}, expected the function itself")
    draws = []
    for seed in range(len(SIZES)):
        inputs, i = draw_inputs(item, seed)
        try:
            returned = function(*i.given.values())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also a SystemExit of its own
            return Result(0.0, (), what_was_raised(error, function, item))
        try:
            outputs = named_outputs(item, returned)
        except ValueError as error:
            return Result(0.0, (), str(error))
        changed = [name for name in inputs if not same(inputs[name], i.given[name])]
        if changed:
            return Result(0.0, (), f"it changes its argument {' and '.join(changed)}: compute into a new array")
        draws.append((i, outputs))
    if item.properties is not None:
        return result_of([property_findings(item, i, outputs) for i, outputs in draws])
    return result_of(compared_findings(item, draws))


def what_was_raised(error, function, item):
    """An exception of the student's code in one sentence, with the line it comes from."""
    if isinstance(error, NotImplementedError):
        return "it is not written yet"
    code, where = getattr(function, "__code__", None), ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code is code:
            where = f", in line {line - code.co_firstlineno + 1} of the function"
    try:
        said = f": {error}" if str(error) else ""
    except Exception:  # an exception's own text can fail, too
        said = ""
    shapes = isinstance(error, ValueError) and ("broadcast" in said or "matmul" in said or "reshape" in said)
    advice = ". Print the shapes just before it, and compare them with those on your paper" if shapes else ""
    if isinstance(error, TypeError) and error.__traceback__.tb_next is None:  # in the call itself
        advice = f". It is called as {item.name}({item.arguments})"
    return f"it raises {type(error).__name__}{said}{where}{advice}"


def same(one, two):
    """Whether a value is still what it was; arrays inside lists and dicts too."""
    if isinstance(one, dict):
        return isinstance(two, dict) and list(one) == list(two) and all(same(one[k], two[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two))
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.dtype == two.dtype and np.array_equal(one, two, equal_nan=True)
    return True if callable(one) or isinstance(one, np.random.Generator) else one == two


# ---------------------------------------------------------------- the findings


def result_of(findings_of_draws):
    """An output is right if it is in every draw; the first draw's complaint is the one that is told."""
    found = []
    for findings in zip(*findings_of_draws):
        found.append(next((finding for finding in findings if finding.wrong), findings[0]))
    return Result(sum(f.wrong is None for f in found) / len(found), tuple(found))


def property_findings(item, i, outputs):
    forms = {name: kind_problem(value) for name, value in outputs.items()}
    try:
        found = item.properties(i, outputs)
    except Exception as error:  # whatever the outputs are that it could not read
        unread = f"what is returned cannot be read ({type(error).__name__}: {error})"
        found = {name: forms.get(name) or unread for name in item.hints}
    hints = {name: None if forms.get(name) else item.hints.get(name) for name in found}
    return [Finding(name, wrong, (), hints[name] if wrong else None) for name, wrong in found.items()]


def compared_findings(item, draws):
    """For each draw its findings; what an output looks like is what it looks like in every draw that is wrong."""
    checked = []
    for i, outputs in draws:
        forms = {name: form_problem(value, i.right.get(name), item.finite) for name, value in outputs.items()}
        given = {name: None if kind_problem(value) else np.asarray(value) for name, value in outputs.items()}
        try:
            arrays = item.compared(i, given)
        except Exception as error:  # whatever the outputs are that it could not compare
            arrays, reason = dict.fromkeys(i.right), Problem(why_not_comparable(error, given), hint=True)
            forms = {name: forms.get(name) or reason for name in i.right}
        checked.append((i, arrays, forms))
    findings = []
    for i, arrays, forms in checked:
        findings.append([finding(item, name, i, arrays, forms, checked) for name in i.right])
    return findings


def why_not_comparable(error, given):
    if isinstance(error, Unfit):
        return str(error)
    if any(value is None for value in given.values()):
        return "it goes with an output that is no array of numbers"
    shapes = ", ".join(f"{name} {value.shape}" for name, value in given.items())
    return f"the shapes of what is returned do not fit each other: {shapes}"


def finding(item, name, i, arrays, forms, checked):
    right, hint = np.asarray(i.right[name]), item.hints.get(name)
    problem = forms.get(name) or form_problem(arrays[name], right, item.finite)
    if problem:
        looks_like = () if kind_problem(arrays[name]) else exchanged(item, name, i, np.asarray(arrays[name]))
        return Finding(name, problem.said, looks_like, hint if problem.hint else None)
    got = np.asarray(arrays[name])
    if same_values(got, right, item.rtol):
        return Finding(name, None)
    try:
        looks_like = suspects(item, name, checked)
    except Exception:  # numbers too wild for a diagnosis are wrong all the same
        looks_like = ()
    return Finding(name, how_far(item, i, got, right), looks_like, hint)


def kind_problem(value):
    """What is wrong with an output that is not made of real numbers; None if it is."""
    if value is None:
        return "it is None"
    try:
        array = np.asarray(value)
    except Exception:  # arrays of several shapes in one tuple or list; other packages' own arrays
        many = f" of {len(value)} arrays" if isinstance(value, (tuple, list)) else ""
        return f"it is a {type(value).__name__}{many}, expected one array of numbers"
    if array.dtype.kind == "c":
        return "it is made of complex numbers, expected real ones"
    if array.dtype.kind not in "iufb":
        what = f"an array of dtype {array.dtype}" if isinstance(value, np.ndarray) else kind_of(value)
        return f"it is {what}, expected numbers"
    return None


def form_problem(value, right, finite):
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
    if right.dtype.kind == "f" and array.ndim and array.dtype != right.dtype:
        but = "; its numbers are right" if same_values(array, right, ROUNDED) else ""
        return Problem(f"it has dtype {array.dtype}, expected {right.dtype}, the inputs' own{but}")
    if finite and not np.isfinite(array).all():
        places = f"{np.sum(~np.isfinite(array))} of {array.size} places"
        return Problem(f"it is not finite (NaN or infinity) in {places}", hint=True)
    return None


def how_far(item, i, got, right):
    """How far off, for an eye that may know the number."""
    got, right = got.astype(np.float64), right.astype(np.float64)
    if right.ndim == 0:
        given = {name: getattr(i, name) for name in item.arguments.split(", ")}
        if all(isinstance(value, (int, float)) for value in given.values()):
            return f"for {', '.join(f'{name} = {value:g}' for name, value in given.items())} it is {float(got):.6g}"
        return f"it is {float(got):.6g}"
    if not np.array_equal(got[~np.isfinite(right)], right[~np.isfinite(right)], equal_nan=True):
        return "infinity does not stand where it should"
    keep = np.isfinite(right)
    return f"relative error {relative_error(got[keep], right[keep]):.1e}"
