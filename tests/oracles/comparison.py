"""The one comparison that this folder uses, and the largest error that it saw.

It is written here and not taken from lora_np: a judge should not lean on what it judges.
"""

import numpy as np

OUTPUT = GRADIENT = 1e-11  # largest relative error in norm
TRAINED = 1e-9  # of parameters, moments and losses, after 100 steps

LARGEST = {}  # group -> (error, name, tolerance); conftest.py prints it when the tests are done


def relative_error(got, expected, scale=None):
    """‖got − expected‖ / ‖expected‖, or / scale; 0 where both are zero, NaN where one holds a NaN."""
    got, expected = np.asarray(got), np.asarray(expected)
    difference = np.linalg.norm(got - expected)
    scale = np.linalg.norm(expected) if scale is None else scale
    if difference == 0.0:
        return 0.0
    return float(difference / scale) if scale != 0.0 else float("inf")


def check(group, name, got, expected, tolerance, scale=None):
    """Assert that one array is the oracle's; `expected` is an array or a tensor."""
    assert got is not None, f"{name}: lora_np returned None"
    assert expected is not None, f"{name}: the oracle has none"
    got, expected = np.asarray(got), as_array(expected)
    assert got.shape == expected.shape, f"{name}: got shape {got.shape}, expected {expected.shape}"
    assert got.dtype == expected.dtype == np.float64, f"{name}: {got.dtype} against {expected.dtype}"
    error = relative_error(got, expected, scale)
    if not error <= LARGEST.get(group, (-1.0,))[0]:
        LARGEST[group] = (error, name, tolerance)
    assert error <= tolerance, f"{group}: {name} is off by {error:.1e} (at most {tolerance:.0e})"


def check_all(group, got, expected, tolerance, zero=()):
    """Assert that two dicts of arrays have the same names and the same values.

    Names that end in one of `zero` are zero in theory and rounding errors in practice, so they are
    judged against the norm of all arrays together. A key's bias is one: it adds the same number to
    all scores of a query, which softmax takes out again.
    """
    assert set(got) == set(expected), f"{group}: the names differ: {sorted(set(got) ^ set(expected))}"
    whole = np.sqrt(sum(np.sum(as_array(array) ** 2) for array in expected.values()))
    for name in expected:
        scale = whole if name.endswith(tuple(zero)) else None
        check(group, name, got[name], expected[name], tolerance, scale)


def as_array(value):
    """A NumPy array of an array, a number or a tensor."""
    return value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)
