"""What a wrong array looks like beside the right one: a factor, a sign, another order, another array."""

import itertools
import math

import numpy as np

from .tolerances import rms


def looks(right, got, dtype="float64", others=None, factors=None):
    """Sentences on how an array differs from the right one of its shape.

    Parameters
    ----------
    right, got : arrays of one shape that differ
    dtype : "float64" or "float32", what both were computed in
    others : dict, name -> array: arrays that it may be instead
    factors : dict, name -> number: what it may have been multiplied or divided by

    Returns
    -------
    list of str, each about "it"
    """
    with np.errstate(all="ignore"):
        return describe(right.astype(np.float64), got.astype(np.float64), dtype, others or {}, factors or {})


def describe(right, wrong, dtype, others, factors):
    keep = np.isfinite(right)
    if not np.isfinite(wrong[keep]).all():
        return ["it holds NaN or infinity where numbers are expected: an overflow, 0/0, or memory that nothing wrote"]
    if not np.array_equal(wrong[~keep], right[~keep]):
        return ["it should be −inf where a key comes after its query; it holds other numbers there"]
    largest = np.abs(right[keep]).max(initial=0.0) or 1.0
    wrong, right = wrong / largest, right / largest  # so that no square overflows or vanishes
    a, b = wrong[keep], right[keep]
    size = rms(b)
    if size == 0.0:
        return ["it should be 0 throughout"]
    if not a.any():
        return ["it is 0 throughout: never computed, or cut off from what it depends on"]
    near = 1e-10 * size if dtype == "float64" else 1e-4 * size

    def close(x, y):
        return x.shape == y.shape and bool((np.abs(x - y) <= near).all())

    error = float(np.abs(a - b).max()) / size
    if error < 1e-2:
        guess = "some of it in float32, or " if dtype == "float64" and 1e-9 < error < 1e-5 else ""
        return [f"it is off by {error:.0e} of its size: {guess}a constant with too few digits, or a small term"]
    if close(a, -b):
        return ["its sign is reversed"]
    longest = np.abs(a).max()
    share = float(a / longest @ b / (b @ b))
    if b.size > 1 and close(a / longest, share * b):
        return [f"it is the right value {known_factor(share * longest, factors)}"]
    shift = float((a - b).mean())
    if b.size > 1 and close(a, b + shift) and abs(shift) > near:
        return [f"it is the right value plus {shift * largest:.9g}, the same everywhere"]
    alike = [(f"the right value {words}", moved) for words, moved in rearranged(right)]
    for words, array in [*alike, *((name, other.astype(np.float64) / largest) for name, other in others.items())]:
        if close(wrong, array):
            return [f"it is {words}"]
    if b.size > 2 and close(np.sort(a), np.sort(b)):
        return ["it has the right numbers in other places"]
    if b.size == 1:
        return [f"no known mistake; it is {float(a[0] / b[0]):.6g} times the right one"]
    norms = float(np.linalg.norm(a) / np.linalg.norm(b))
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    summary = f"no known mistake; its norm is {norms:.4g} of the right one's, their cosine {cosine:.4f}"
    return [*only_some(wrong, right, near), summary]


def rearranged(right):
    """(words, array) for each other order of an array's entries that axes, flips and shifts give."""
    axes = range(right.ndim)
    for order in itertools.permutations(axes):
        if order != tuple(axes):
            turned = right.transpose(order)
            yield f"with its axes exchanged, {order}", turned
            yield f"with its axes exchanged, {order}", turned.reshape(right.shape)
    for axis in axes:
        yield f"in reverse order along axis {axis}", np.flip(right, axis)
        if right.shape[axis] > 1:
            yield from ((f"moved by one along axis {axis}", np.roll(right, step, axis)) for step in (1, -1))


def known_factor(factor, factors):
    """A factor in words: the name of a quantity that has its value or its inverse's, or its digits."""
    for word, value in (("times", factor), ("divided by", 1 / factor if factor else math.inf)):
        names = [name for name, known in factors.items() if math.isclose(value, known, rel_tol=1e-6)]
        if names:
            return f"{word} {' or '.join(names)}"
    return f"times {factor:.9g}"


def only_some(wrong, right, near):
    """A sentence, in a list, if some slices of an axis are wrong and all the rest is right."""
    far = np.abs(wrong - right) > near
    for axis in range(right.ndim):
        slices = far.any(axis=tuple(i for i in range(right.ndim) if i != axis))
        if 0 < slices.sum() <= len(slices) / 2 and len(slices) > 1:
            return [f"only entries with index {', '.join(map(str, np.flatnonzero(slices)))} on axis {axis} are off"]
    return []
