"""How far a correct port may be from the reference: measured for each tensor, not guessed.

Two correct implementations differ only by rounding: sums in another order, another library's tanh. How much of it
reaches a tensor depends on everything computed before, so it is measured. The error of a tensor is the largest
distance, over all its entries, between its values in float64 and

- the package's own in float32,
- those in float64 from inputs each moved by up to half a unit of float32's last place, ten times at random.

A tensor's tolerance in float32 is 16 times that error, in float64 that times 2⁻²⁹, the ratio of the two precisions:

    |got − expected| ≤ atol + rtol · |expected|        rtol = 16 ε

and atol is at least 16 ε rms, so that a lucky draw makes none too strict. One relative tolerance for all tensors or
entries would not work: where a sum cancels, correct entries differ in the third digit in float32, and the gradient of
`k_proj.bias`, zero in theory, is nothing but rounding.
"""

from decimal import ROUND_CEILING, Context

import numpy as np

from .cases.draws import bits_of, uniform

SAFETY = 16.0
DRAWS = 10
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23}
RTOL = {dtype: SAFETY * epsilon for dtype, epsilon in EPSILON.items()}


def rms(array):
    """The root of the mean square of the finite entries; 0 where there are none."""
    finite = np.abs(array[np.isfinite(array)], dtype=np.float64)
    largest = finite.max(initial=0.0)
    return float(largest * np.sqrt(np.mean((finite / largest) ** 2))) if largest > 0 else 0.0


def shares(got, expected, atol=1.0, rtol=0.0):
    """|got − expected| of each entry as a share of what is allowed, atol + rtol |expected|: above 1 it is off.

    Of an entry that is not finite: 0 if both are the same, else inf. The defaults give |got − expected| itself.
    """
    got, expected = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(all="ignore"):
        share = np.abs(got - expected) / (atol + rtol * np.abs(expected))
    return np.where(same, 0.0, np.nan_to_num(share, nan=np.inf, posinf=np.inf))


def allowed(record, dtype):
    """(atol, rtol) of a tensor. Inputs, which a port may hand back, and tensors of atol 0 have to be equal."""
    atol = record[dtype].get("atol", 0.0)
    return atol, RTOL[dtype] if atol else 0.0


def tolerances(case, outputs):
    """{output: {"float64": atol, "float32": atol}} of one case.

    Parameters
    ----------
    case : ReferenceCase
    outputs : {"float64": its outputs, "float32": its outputs}

    Raises
    ------
    ValueError
        If whole numbers, such as generated tokens, depend on rounding: such a case is no reference.
    """
    others = []
    if "exact" not in case.flags:
        others += [] if case.inputs_float32 else [outputs["float32"]]
        others += [case.compute(case.settings, moved(case, i)) for i in range(DRAWS)]
    atols = {}
    for name, array in outputs["float64"].items():
        error = max((float(shares(other[name], array).max(initial=0.0)) for other in others), default=0.0)
        whole = not np.issubdtype(array.dtype, np.floating)
        if whole and error > 0:
            raise ValueError(f"{case.id}: {name} changes with rounding; expected whole numbers that do not")
        size = 0.0 if whole or "exact" in case.flags else max(error / EPSILON["float32"], rms(array))
        atols[name] = {dtype: round_up(SAFETY * epsilon * size) for dtype, epsilon in EPSILON.items()}
    return atols


def moved(case, i):
    """The inputs in float64, each number times 1 ± 2⁻²⁴ at most."""
    bits, inputs = bits_of(f"{case.id}, moved {i}"), dict(case.inputs)
    for name, array in inputs.items():
        if np.issubdtype(array.dtype, np.floating):
            inputs[name] = array * (1.0 + 2.0**-24 * uniform(bits, array.shape))
    return inputs


def round_up(value):
    """Two digits: 1.23e-7 becomes 1.3e-7."""
    return float(Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(value))
