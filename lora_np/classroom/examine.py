"""Examine a student's function: in order, does it run, does it leave its inputs alone, are shape and dtype right, is
everything finite, and is each output right, on random inputs in float64, from two seeds and with two sets of sizes."""

import copy
import traceback
import warnings
from typing import NamedTuple

import numpy as np

from ..ops.numerical_gradient import relative_error
from .diagnosis import suspects
from .item import SIZES, draw_inputs, named_outputs


class Finding(NamedTuple):
    """What was found of one output."""

    output: str
    wrong: str | None  # what is wrong; None: it is right
    looks_like: tuple[str, ...] = ()
    hint: str | None = None


class Result(NamedTuple):
    item: str
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
    Result; whatever the function does, nothing is raised but KeyboardInterrupt
    """
    if not callable(function):
        return Result(item.name, 0.0, (), f"got {type(function).__name__}, expected the function itself")
    draws = []
    for seed in range(len(SIZES)):
        inputs, i = draw_inputs(item, seed)
        given = copy.deepcopy(inputs)
        try:
            returned = call(function, given.values())
            outputs = named_outputs(item, returned)
        except KeyboardInterrupt:
            raise
        except ValueError as error:
            if error.__traceback__.tb_next.tb_frame.f_code is named_outputs.__code__:  # not the function's own
                return Result(item.name, 0.0, (), str(error))
            return Result(item.name, 0.0, (), what_was_raised(error, function))
        except BaseException as error:  # also a SystemExit of its own
            return Result(item.name, 0.0, (), what_was_raised(error, function))
        changed = [name for name in inputs if not same(inputs[name], given[name])]
        if changed:
            text = f"it changes its argument {' and '.join(changed)}: compute into a new array"
            return Result(item.name, 0.0, (), text)
        draws.append((i, outputs))
    if item.properties is not None:
        return result_of(item, [property_findings(item, i, outputs) for i, outputs in draws])
    return result_of(item, compared_findings(item, draws))


def call(function, arguments):
    """The function's answer, with NumPy's warnings kept from stderr: graders give nothing for a cell that warns."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return function(*arguments)


def what_was_raised(error, function):
    """An exception of the student's code in one sentence, with the line it comes from."""
    if isinstance(error, NotImplementedError):
        return "it is not written yet"
    own = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    where = f", in line {lines[-1].lineno - function.__code__.co_firstlineno + 1} of the function" if lines else ""
    said = f": {error}" if str(error) else ""
    shapes = isinstance(error, ValueError) and ("broadcast" in said or "matmul" in said or "reshape" in said)
    advice = ". Print the shapes just before it, and compare them with those on your paper" if shapes else ""
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


def result_of(item, findings_of_draws):
    """An output is right if it is in every draw; the first draw's complaint is the one that is told."""
    found = []
    for findings in zip(*findings_of_draws):
        found.append(next((finding for finding in findings if finding.wrong), findings[0]))
    return Result(item.name, sum(f.wrong is None for f in found) / len(found), tuple(found))


def property_findings(item, i, outputs):
    try:
        found = item.properties(i, outputs)
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        found = {"its form": f"what it returns cannot be read ({type(error).__name__}: {error})"}
        return [Finding(name, found["its form"], (), item.hints.get(name)) for name in item.hints]
    return [Finding(name, wrong, (), item.hints.get(name) if wrong else None) for name, wrong in found.items()]


def compared_findings(item, draws):
    """For each draw its findings; what an output looks like is what it looks like in every draw that is wrong."""
    checked = []
    for i, outputs in draws:
        forms = {name: form_problem(value, None if name not in i.right else i.right[name], item.finite)
                 for name, value in outputs.items()}
        try:
            given = {name: None if forms[name] else np.asarray(value) for name, value in outputs.items()}
            arrays = item.compared(i, given)
        except (TypeError, ValueError, IndexError, np.linalg.LinAlgError) as error:
            arrays, reason = dict.fromkeys(i.right), f"its shapes do not fit each other ({error})"
            forms = {name: forms.get(name) or reason for name in i.right}
        checked.append((i, arrays, forms))
    findings = []
    for i, arrays, forms in checked:
        findings.append([finding(item, name, i, arrays, forms, checked) for name in i.right])
    return findings


def finding(item, name, i, arrays, forms, checked):
    right, hint = np.asarray(i.right[name]), item.hints.get(name)
    problem = forms.get(name) or form_problem(arrays[name], right, item.finite)
    if problem:
        return Finding(name, problem, (), hint)
    got = np.asarray(arrays[name])
    if is_right(got, right, item.rtol):
        return Finding(name, None)
    return Finding(name, how_far(item, i, got, right), suspects(item, name, checked), hint)


def form_problem(value, right, finite):
    """What is wrong with the kind, shape or dtype of an output; None if nothing is."""
    try:
        array = np.asarray(value)
    except ValueError:  # arrays of several shapes in one tuple or list
        return f"it is a {type(value).__name__} of {len(value)} arrays, expected one"
    if array.dtype.kind not in "iufb":
        return f"it is a {type(value).__name__}, expected numbers"
    if right is None:
        return None
    right = np.asarray(right)
    if array.shape != right.shape:
        turned = " (it is transposed)" if array.ndim == 2 and array.shape == right.shape[::-1] else ""
        return f"it has shape {array.shape}, expected {right.shape}{turned}"
    if right.dtype.kind == "f" and array.ndim and array.dtype != right.dtype:
        return f"it has dtype {array.dtype}, expected {right.dtype}, the inputs' own"
    if finite and not np.isfinite(array).all():
        return f"it is not finite (NaN or infinity) in {np.sum(~np.isfinite(array))} of {array.size} places"
    return None


def is_right(got, right, rtol):
    got, right = got.astype(np.float64), right.astype(np.float64)
    keep = np.isfinite(right)
    if not np.array_equal(got[~keep], right[~keep], equal_nan=True) or not np.isfinite(got[keep]).all():
        return False
    return relative_error(got[keep], right[keep]) <= rtol


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
