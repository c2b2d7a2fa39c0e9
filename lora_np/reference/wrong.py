"""The package with a known mistake in it: `mistaken` changes functions in memory and puts the right ones back."""

import importlib
import inspect
import math
import sys
import threading
from contextlib import contextmanager
from functools import cache

import numpy as np

from .cases import in_dtype, reference_cases
from .mistakes import MISTAKES

OPEN = threading.Lock()  # held while a mistake is open


@cache
def computes():
    """The function that computes a case's outputs, by kind."""
    return {case.kind: case.compute for case in reference_cases().values()}


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
    with mistaken(mistake), np.errstate(all="ignore"):  # a mistake may well divide by zero
        outputs = computes()[kind](settings, inputs)
    return {name: in_dtype(np.asarray(array), dtype) for name, array in outputs.items()}


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
    right = {}
    try:
        for function, code in wrong_code(mistake).items():
            right[function] = function.__code__
            function.__globals__["wrong"], function.__code__ = sys.modules[__name__], code
        yield
    finally:
        for function, code in right.items():
            function.__code__ = code
            function.__globals__.pop("wrong", None)
        INPUT_OF.clear()
        OPEN.release()


@cache
def wrong_code(mistake):
    """The compiled wrong version of each function that a mistake changes."""
    sources = {}
    for place, right, wrong in MISTAKES[mistake]:
        function = function_at(place)
        source = sources.get(function, inspect.getsource(function))
        if source.count(right) != 1:
            raise AssertionError(f"{place}: expected {right!r} once in the source, for the mistake {mistake!r}")
        sources[function] = source.replace(right, wrong)
    return {function: compiled(function, source) for function, source in sources.items()}


def compiled(function, source):
    """The code that a function has with another source."""
    names = dict(function.__globals__)
    exec(compile(source, function.__code__.co_filename, "exec"), names)
    return names[function.__name__].__code__


def function_at(place):
    """The function of a place such as "ops.linear:linear_forward"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"lora_np.{module}"), name)


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
