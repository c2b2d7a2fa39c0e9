"""The package with a known mistake in it: `mistaken` changes functions in memory and puts the right ones back."""

import inspect
import math
import sys
import threading
from contextlib import ExitStack, contextmanager
from functools import cache
from pkgutil import resolve_name

import numpy as np

from .cases import reference_cases
from .mistakes import MISTAKES

OPEN = threading.Lock()  # held while a mistake is open


@cache
def cases_by_kind():
    """A case of each kind: all of one kind compute their outputs alike."""
    return {case.kind: case for case in reference_cases().values()}


def wrong_outputs(mistake, kind, settings, inputs, dtype):
    """What a mistake makes of a case's outputs.

    Parameters
    ----------
    mistake : a key of `MISTAKES`
    kind, settings, inputs : as in the manifest; inputs in the precision
    dtype : "float64" or "float32"

    Returns
    -------
    dict, name -> array
    """
    case = cases_by_kind()[kind]._replace(settings=settings, inputs=inputs, inputs_float32={})
    with mistaken(mistake), np.errstate(all="ignore"):  # a mistake may well divide by zero
        return case.outputs_in(dtype)


@contextmanager
def mistaken(mistake):
    """While this is open, the whole package makes the mistake, in all threads.

    The wrong functions know this module as `wrong`.

    Raises
    ------
    RuntimeError
        If another mistake is open, here or in another thread.
    """
    if not OPEN.acquire(blocking=False):
        raise RuntimeError(f"mistake: {mistake!r} cannot be made while another one is")
    with ExitStack() as undo:  # which undoes all of it in reverse order
        undo.callback(OPEN.release)
        undo.callback(INPUT_OF.clear)
        for function, code in wrong_code(mistake).items():
            undo.callback(setattr, function, "__code__", function.__code__)
            undo.callback(function.__globals__.pop, "wrong", None)
            function.__globals__["wrong"], function.__code__ = sys.modules[__name__], code
        yield


@cache
def wrong_code(mistake):
    """The compiled wrong version of each function that a mistake changes."""
    sources, codes = {}, {}
    for place, right, wrong in MISTAKES[mistake]:
        function = resolve_name(f"lora_np.{place}")  # such as "lora_np.ops.linear:linear_forward"
        source = sources.get(function, inspect.getsource(function))
        if source.count(right) != 1:
            raise AssertionError(f"{place}: expected {right!r} once in the source, for the mistake {mistake!r}")
        sources[function] = source.replace(right, wrong)
    for function, source in sources.items():
        names = dict(function.__globals__)
        exec(compile(source, function.__code__.co_filename, "exec"), names)
        codes[function] = names[function.__name__].__code__
    return codes


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


def shifted(targets, ignored):
    return np.concatenate([targets[..., 1:], np.full_like(targets[..., :1], ignored)], axis=-1)


def first_alike(layer, call):
    """The first adapted layer where its mask has the shape of this layer's, else this layer."""
    first = next(iter(call.adapter_arrays))
    own, other = (call.masks.get(f"{name}.adapter") for name in (layer, first))
    return layer if own is None or own.shape != other.shape else first


def point_below(x, points):
    return np.clip(np.searchsorted(points, x, side="right") - 1, 0, 15)
