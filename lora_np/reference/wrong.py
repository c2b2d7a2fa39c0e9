"""The package with a mistake in it: `changed` replaces functions in memory and puts the right ones back."""

import ast
import inspect
import math
import sys
import threading
import warnings
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import import_module
from pkgutil import resolve_name

import numpy as np

from ..ops.rope import consecutive_tables
from .cases import reference_cases
from .mistakes import MISTAKES
from .mutants import CHANGES, mutants, of_ports

OPEN = threading.Lock()  # held while a mistake is open


@cache
def cases_by_kind():
    """A case of each kind: all of one kind compute their outputs alike."""
    return {case.kind: case for case in reference_cases().values()}


def wrong_outputs(codes, kind, settings, inputs, dtype):
    """What a mistake makes of a case's outputs.

    Parameters
    ----------
    codes : dict, function -> code of its wrong version, from `wrong_code` or `derived`
    kind, settings, inputs : as in the manifest; inputs in the precision
    dtype : "float64" or "float32"

    Returns
    -------
    dict, name -> array
    """
    case = cases_by_kind()[kind]._replace(settings=settings, inputs=inputs, inputs_float32={})
    with changed(codes), np.errstate(all="ignore"):  # a mistake may well divide by zero
        return case.outputs_in(dtype)


@contextmanager
def changed(codes):
    """While this is open, the whole package runs these codes, in all threads.

    The wrong functions know this module as `wrong`.

    Raises
    ------
    RuntimeError
        If another change is open, here or in another thread.
    """
    if not OPEN.acquire(blocking=False):
        raise RuntimeError("codes: the package has another change in it; expected one at a time")
    with ExitStack() as undo:  # which undoes all of it in reverse order
        undo.callback(OPEN.release)
        undo.callback(consecutive_tables.cache_clear)
        undo.callback(INPUT_OF.clear)
        for function, code in codes.items():
            undo.callback(setattr, function, "__code__", function.__code__)
            undo.callback(function.__globals__.pop, "wrong", None)
            function.__globals__["wrong"], function.__code__ = sys.modules[__name__], code
        consecutive_tables.cache_clear()  # which may have been filled by the right functions
        yield


@cache
def wrong_code(mistake):
    """The compiled wrong version of each function that a known mistake changes."""
    sources = {}
    for place, right, wrong in MISTAKES[mistake]:
        function = resolve_name(f"lora_np.{place}")  # such as "lora_np.ops.linear:linear_forward"
        source = sources.get(function, inspect.getsource(function))
        if source.count(right) != 1:
            raise AssertionError(f"{place}: expected {right!r} once in the source, for the mistake {mistake!r}")
        sources[function] = source.replace(right, wrong)
    return {function: compiled(function, source) for function, source in sources.items()}


def compiled(function, source):
    """The code of another version of a function."""
    names = dict(function.__globals__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, about what a mistake does
        exec(compile(source, function.__code__.co_filename, "exec"), names)
    return names[function.__name__].__code__


@cache
def derived(module):
    """Small changes to the functions of a module, such as "ops.rope": sentence -> codes; see `mutants.py`.

    Without those after which an array could hold what was in memory by chance.
    """
    found, path = {}, f"lora_np.{module}"
    for function in vars(import_module(path)).values():
        own = inspect.isfunction(function) and function.__module__ == path and not hasattr(function, "__wrapped__")
        for mutant in mutants(ast.parse(inspect.getsource(function)).body[0], (*CHANGES, of_ports)) if own else ():
            unset = any(word in mutant.place for word in ("empty", "blocks("))  # that loop fills an empty array
            if unset or "out=" in mutant.place and "left out" in mutant.sentence:
                continue
            where = f"{module.replace('.', '/')}.py, {function.__name__}, `{mutant.place}`"
            found[f"{where}: {mutant.sentence}"] = {function: compiled(function, mutant.code)}
    return found


# ---------------------------------------------------------------- what some of the changes call

INPUT_OF = {}  # id of an array -> what it was computed from


def reread(matrix):
    """What a matrix becomes whose bytes are read with the axes exchanged: its own shape, other places."""
    return matrix.reshape(matrix.shape[::-1]).T


def normal_share(x):
    """Φ(x), the normal distribution's."""
    return (0.5 * (1.0 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2.0)))).astype(x.dtype)


def seen(q, k, positions):
    """Which keys a query may attend to: bool (…, Tq, Tk)."""
    Tq, Tk = q.shape[1], k.shape[1]
    query_at = np.arange(Tk - Tq, Tk) if positions is None else positions[:, None]
    return np.arange(Tk) <= query_at[..., None]


def by_rest(x, n_kv_heads):
    """`stack_groups` with the query heads of the same rest: (B, H, T, N) -> (B, K, H/K · T, N)."""
    B, H, T, N = x.shape
    return x.reshape(B, H // n_kv_heads, n_kv_heads, T, N).swapaxes(1, 2).reshape(B, n_kv_heads, -1, N)


def from_rest(x, n_heads):
    """The inverse of by_rest."""
    B, K, _, N = x.shape
    return x.reshape(B, K, n_heads // K, -1, N).swapaxes(1, 2).reshape(B, n_heads, -1, N)


def shifted(targets, ignored):
    return np.concatenate([targets[..., 1:], np.full_like(targets[..., :1], ignored)], axis=-1)


def first_alike(layer, call):
    """The first adapted layer where its mask has the shape of this layer's, else this layer."""
    first = next(iter(call.adapter_arrays))
    own, other = (call.masks.get(f"{name}.adapter") for name in (layer, first))
    return layer if own is None or own.shape != other.shape else first


def point_below(x, points):
    return np.clip(np.searchsorted(points, x, side="right") - 1, 0, 15)
