"""Measure the tolerance of each tensor: how far a correct port may deviate from the reference.

Two correct implementations differ only by rounding errors, for example because they sum in different orders or use tanh
from different libraries. A tensor's rounding error depends on everything computed before it, so it has to be measured.
The error is the largest difference, over all entries, between the tensor's float64 values and

- the package's float32 values,
- ten sets of float64 values, computed from inputs randomly perturbed by up to half a unit in float32's last place.

A tensor's float32 tolerance is 16 times its rounding error. Its float64 tolerance is the float32 tolerance times 2⁻²⁹,
the ratio of the two precisions. A value agrees with the reference if

    |got − expected| ≤ atol + rtol · |expected|        rtol = 16 ε

atol is at least 16 ε times the tensor's RMS, so that a measured error that happens to be small does not make the
tolerance too strict. A single relative tolerance for all tensors or entries would not work. Where the terms of a sum
cancel, two correct float32 values may differ in the third digit. The gradient of `k_proj.bias`, which is zero in
theory, consists only of rounding errors.
"""

from decimal import ROUND_CEILING, Context

import numpy as np

from .cases.draws import bits_of, uniform

SAFETY = 16.0
DRAWS = 10
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23}
RTOL = {dtype: SAFETY * epsilon for dtype, epsilon in EPSILON.items()}


def rms(array):
    """The root mean square of the finite entries; 0 if there are none."""
    finite = np.abs(array[np.isfinite(array)], dtype=np.float64)
    largest = finite.max(initial=0.0)
    return float(largest * np.sqrt(np.mean((finite / largest) ** 2))) if largest > 0 else 0.0


def shares(got, expected, atol=1.0, rtol=0.0):
    """Each entry's error |got − expected|, divided by its tolerance atol + rtol |expected|.

    An entry agrees with the reference if its quotient is at most 1. Where a value is not finite, the quotient is 0 if
    both values are the same, else inf. With the defaults atol = 1 and rtol = 0, the quotients are the absolute errors.
    """
    got, expected = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(all="ignore"):
        share = np.abs(got - expected) / (atol + rtol * np.abs(expected))
    return np.where(same, 0.0, np.nan_to_num(share, nan=np.inf, posinf=np.inf))


def allowed(record, dtype):
    """The (atol, rtol) of a tensor; (0, 0) for exact tensors and for inputs (a port's file may contain them too)."""
    atol = record[dtype].get("atol", 0.0)
    return atol, RTOL[dtype] if atol else 0.0


def tolerances(case, outputs):
    """Measure the tolerances of one case.

    Parameters
    ----------
    case : ReferenceCase
    outputs : dict, precision -> the outputs of the case

    Returns
    -------
    dict, output -> {"float64": atol, "float32": atol}

    Raises
    ------
    ValueError
        If integers, such as generated tokens, depend on rounding.
    """
    others = []
    if "exact" not in case.flags:
        others += [] if case.inputs_float32 else [outputs["float32"]]
        others += [case.compute(case.settings, perturbed(case, i)) for i in range(DRAWS)]
    atols = {}
    for name, array in outputs["float64"].items():
        error = max((float(shares(other[name], array).max(initial=0.0)) for other in others), default=0.0)
        whole = not np.issubdtype(array.dtype, np.floating)
        if whole and error > 0:
            raise ValueError(f"{case.id}: integers in {name} depend on rounding errors, expected exact values")
        size = 0.0 if whole or "exact" in case.flags else max(error / EPSILON["float32"], rms(array))
        atols[name] = {dtype: round_up(SAFETY * epsilon * size) for dtype, epsilon in EPSILON.items()}
    return atols


def perturbed(case, i):
    """The inputs in float64, with each value multiplied by a random factor from 1 − 2⁻²⁴ to 1 + 2⁻²⁴."""
    bits, inputs = bits_of(f"{case.id}, moved {i}"), dict(case.inputs)
    for name, array in inputs.items():
        if np.issubdtype(array.dtype, np.floating):
            inputs[name] = array * (1.0 + 2.0**-24 * uniform(bits, array.shape))
    return inputs


def round_up(value):
    """Round up to two significant digits: 1.23e-7 becomes 1.3e-7."""
    return float(Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(value))
