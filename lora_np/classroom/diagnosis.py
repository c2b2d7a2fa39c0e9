"""What a wrong output looks like: a known mistake, a quantity that it is multiplied or divided by, or another array."""

import math

import numpy as np

from ..ops.numerical_gradient import relative_error
from ..reference.causes import known_factor, looks

NEAR = 1e-7  # relative, in norm: a known mistake rounds otherwise than the student's
MOST = 2  # sentences


def suspects(item, name, checked):
    """What a wrong output looks like, the likeliest first.

    Parameters
    ----------
    item : Item
    name : str, of an output
    checked : list of (i, dict of arrays, dict of problems of form), one of each draw

    Returns
    -------
    tuple of str: what holds in every draw in which the output is wrong; if nothing does, what the first one looks
        like without a guess at names
    """
    lists, first = [], None
    for i, arrays, forms in checked:
        got = None if forms.get(name) else np.asarray(arrays[name])
        right = np.asarray(i.right[name])
        if got is not None and got.shape == right.shape and not same_values(got, right):
            lists.append(of_one_draw(item, name, i, right, got))
            first = first or (right, got)
    if not lists:
        return ()
    in_all = [sentence for sentence in lists[0] if all(sentence in other for other in lists[1:])]
    return tuple((in_all or looks(*first))[:MOST])


def of_one_draw(item, name, i, right, got):
    found = []
    for sentence, wrong in item.mistakes.get(name, ()):
        try:
            value = np.asarray(wrong(i))
        except (ValueError, IndexError, ZeroDivisionError, np.linalg.LinAlgError):
            continue  # these sizes make the mistake impossible
        if value.shape == got.shape and same_values(got, value) and not same_values(value, right):
            found.append(sentence)
    if found:
        return found
    named = factor_sentences(right, got, item.factors(i))
    if named:
        return named
    others = {other: np.asarray(value) for other, value in {**vars(i), **i.right}.items() if is_array(value)}
    others.pop(name, None)
    return looks(right, got, others=others)


def exchanged(item, name, i, got):
    """Of an output of the wrong shape: which other one it is, as a tuple of at most one sentence."""
    for other, right in i.right.items():
        right = np.asarray(right)
        if other != name and got.shape == right.shape != np.shape(i.right[name]) and same_values(got, right, item.rtol):
            return (f"it is {other}; the order is {', '.join(item.outputs)}",)
    return ()


def factor_sentences(right, got, factors):
    """A sentence for each quantity that the right value may have been multiplied or divided by; also of one number."""
    a, b = (array[np.isfinite(right)].astype(np.float64) for array in (got, right))
    if not np.isfinite(a).all() or not a.any() or not b.any():
        return []
    factor = float(a @ b / (b @ b))
    if not same_values(got, factor * right):
        return []
    if math.isclose(factor, -1.0, rel_tol=NEAR):
        return ["its sign is reversed"]
    said = [known_factor(factor, {name: value}) for name, value in factors.items()]
    return [f"it is the right value {words}" for words, name in zip(said, factors) if words.endswith(name)]


def is_array(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def same_values(got, expected, rtol=NEAR):
    """Whether two arrays of one shape are the same but for rounding, in norm; what is not finite has to be the same."""
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    keep = np.isfinite(expected)
    if not np.array_equal(got[~keep], expected[~keep], equal_nan=True) or not np.isfinite(got[keep]).all():
        return False
    return relative_error(got[keep], expected[keep]) <= rtol
