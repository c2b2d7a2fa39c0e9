"""Run the plain program with a mistake inserted."""

import ast
import builtins
import copy
import inspect
import itertools
import math
import os
import sys
import warnings
from functools import cache
from types import ModuleType, SimpleNamespace

import numpy as np

from .cases.case import ReferenceCase
from .mistakes import MISTAKES
from .mutants import CHANGES, mutants
from .plain import PLAIN, calls, cases, files, model, operations, training
from .port_slips import PORTS, layouts, readings, values_of_ports
from .slips import axes, brackets, slices, slips

MODULES = operations, model, training, files, cases


def wrong_outputs(sources, kind, settings, inputs, dtype):
    """Compute a case's outputs with a mistake inserted into the plain program.

    Parameters
    ----------
    sources : dict, function -> source of its changed version, from `known`, `derived` or `both`
    kind, settings, inputs : as in the manifest, with the inputs in the precision of `dtype`
    dtype : "float64" or "float32"

    Returns
    -------
    dict, name of an output -> array
    """
    case = ReferenceCase("", 0, kind, copy.deepcopy(settings), inputs, changed_programs(sources)[kind], "", "")
    with np.errstate(all="ignore"):  # a mistake may divide by zero
        return case.outputs_in(dtype)


def changed_programs(sources):
    """Return the programs of a copy of the plain program, in which some functions are replaced; see `cases.programs`.

    The sources may refer to this module as `wrong`.
    """
    copies = SimpleNamespace(calls=calls)

    def import_(name, *more):
        """Import a copy in place of a module of the plain program."""
        return copies if more[-1] else __import__(name, *more)

    for module in MODULES:  # each imports only those before it
        made = ModuleType(module.__name__)
        vars(made).update(__builtins__=vars(builtins) | {"__import__": import_}, wrong=sys.modules[__name__])
        exec(code_of(module), vars(made))
        for function, source in sources.items():
            if function.__module__ == module.__name__:
                exec(compiled(source), vars(made))
        setattr(copies, module.__name__.rpartition(".")[2], made)
    return copies.cases.programs()


@cache
def known(mistake):
    """The changed sources of the functions that a known mistake affects, as a dict keyed by function."""
    sources = {}
    for function, right, wrong in MISTAKES[mistake]:
        source = sources.get(function, inspect.getsource(function))
        if source.count(right) != 1:
            place = function.__name__
            raise AssertionError(f"{place}: expected {right!r} exactly once in the source, for the mistake {mistake!r}")
        sources[function] = source.replace(right, wrong)
    return {function: normal(source) for function, source in sources.items()}


@cache
def code_of(module):
    return compile(inspect.getsource(module), module.__file__, "exec")


@cache
def compiled(source):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler warns about some mistakes
        return compile(source, "<changed>", "exec")


@cache
def derived(function, usual=False):
    """The mutations of a function as a list of (sentence, sources); if `usual`, only those of `mutants.py`."""
    tree, found = ast.parse(inspect.getsource(function)).body[0], {}  # source -> sentence
    changes = [slips(tree, ()), mutants(tree, PORTS)]
    if usual:
        changes = [mutants(tree)]
    elif function.__module__ in (model.__name__, cases.__name__):  # these modules only pass arrays on
        changes = [mutants(tree, (*CHANGES, readings, brackets))]
    elif function.__module__ == files.__name__:
        changes = [mutants(tree, (*CHANGES, readings, axes, slices, values_of_ports, layouts))]
    for mutant in itertools.chain(*changes):
        place = f"{function.__name__}, `{mutant.place}`" if mutant.place else function.__name__
        found.setdefault(mutant.code, f"{place}: {mutant.sentence}")
    return [(sentence, {function: source}) for source, sentence in found.items()]


def both(first, second):
    """Combine the sources of two changes; return None if both change the same text."""
    sources = first | second
    for function in first.keys() & second.keys():
        right = normal(inspect.getsource(function))
        (i, j, before), (k, n, after) = sorted(difference(right, change[function]) for change in (first, second))
        if j > k:
            return None
        sources[function] = right[:i] + before + right[j:k] + after + right[n:]
    return sources


@cache
def normal(source):
    """Normalise a source with `ast.unparse`, as `mutants.py` does."""
    return ast.unparse(ast.parse(source))


def difference(right, wrong):
    """Return (start, end, replacement): the span of `right` that differs, and the text that replaces it in `wrong`."""
    start = len(os.path.commonprefix([right, wrong]))
    same = len(os.path.commonprefix([right[start:][::-1], wrong[start:][::-1]]))
    return start, len(right) - same, wrong[start : len(wrong) - same]


def functions_behind(kind, settings, inputs):
    """The functions of the plain program that a case calls, as a list."""
    codes = set()
    sys.setprofile(lambda frame, event, argument: codes.add(frame.f_code))
    try:
        PLAIN[kind](settings, inputs)
    finally:
        sys.setprofile(None)
    own = [f for module in MODULES for f in vars(module).values() if inspect.isfunction(f)]
    return [function for function in dict.fromkeys(own) if function.__code__ in codes]


# ---------------------------------------------------------------- functions that changed sources call


def reread(matrix):
    """Read a matrix row by row; return its entries, written column by column, in a matrix of the same shape."""
    return matrix.reshape(matrix.shape[::-1]).T


def rewritten(matrix):
    """Read a matrix column by column; return its entries, written row by row, in a matrix of the same shape."""
    return matrix.T.reshape(matrix.shape)


def normal_share(x):
    """Φ(x), the cumulative distribution function of the standard normal distribution."""
    return (0.5 * (1.0 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2.0)))).astype(x.dtype)


def erf_approximation(x):
    """An approximation of erf: Abramowitz and Stegun 1964, equation 7.1.26."""
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x))
    powers_of_t = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return np.copysign(1.0 - powers_of_t * np.exp(-(x**2)), x)


def turned_back(keys, sizes):
    """Undo the rotation of cached keys, (layers, B, T, K · D)."""
    cos, sin = operations.rope_tables(np.arange(keys.shape[2])[None], sizes["head_size"], sizes["rope_theta"])
    return np.stack([operations.rope_backward(of_layer, cos, sin) for of_layer in keys])


def shifted(targets, ignored):
    return np.concatenate([targets[..., 1:], np.full_like(targets[..., :1], ignored)], axis=-1)


def first_alike(name, settings, t):
    """The name of the first adapted layer, if its mask has the shape of layer `name`'s mask; otherwise `name`."""
    first = next(iter(settings["adapter"]["layers"]))
    own, other = (t.get(f"mask.{layer}.adapter") for layer in (name, first))
    return name if own is None or own.shape != other.shape else first


def joined(old, new):
    """Append the keys or values of new tokens to the end of the flat array, not to the end of each row."""
    return np.concatenate([old.ravel(), new.ravel()]).reshape(len(new), -1, new.shape[-1])


def powers(penalty, ids, logits):
    """Return penalty ** n for each id of the vocabulary, where n is how often the id occurs in the text."""
    return penalty ** (ids[..., None] == np.arange(logits.shape[-1])).sum(axis=1)


def cut_to_half(x):
    """Convert to float16, rounding towards zero."""
    half = x.astype("<f2")
    return np.where(np.abs(half.astype(x.dtype)) > np.abs(x), np.nextafter(half, np.float16(0)), half).astype("<f2")


def input_of(block, acts):
    """The input of a block: the previous block's output (in an encoder, its norm), or the embedding."""
    i = int(block.rpartition(".")[2])
    before = f"blocks.{i - 1}.norm2" if "emb_norm" in acts else f"blocks.{i - 1}.mlp.residual"
    return acts[before] if i else acts.get("embed", acts["tok_emb"])


def no_subnormals(two_bytes):
    """The bytes of float16 values, with magnitudes below 2⁻¹⁴ set to 0."""
    half = two_bytes.copy().view("<f2")
    return np.where(np.abs(half) < 2.0**-14, np.float16(0), half).view(np.uint8)


def all_normal(two_bytes):
    """Decode float16 values with the formula (1 + m / 1024) · 2^(exponent − 15), even if they are below 2⁻¹⁴."""
    half = two_bytes.copy().view("<f2")
    read = np.copysign(2.0**-15 + 2.0**-25 * (half.view("<u2") & 1023), half)
    return np.where(half.view("<u2") >> 10 & 31, half.astype(np.float64), read)


def drawn_by_size(probs, uniform):
    """Sample an id for each uniform number, using cumulative sums of the probabilities in descending order."""
    order = np.argsort(-probs, axis=-1)
    sums = np.cumsum(np.take_along_axis(probs, order, axis=-1), axis=-1)
    places = (sums <= uniform[:, None] * sums[:, -1:]).sum(axis=-1)
    return np.take_along_axis(order, places[:, None], axis=-1)[:, 0]
