"""The gradient check: compare every backward pass of the package with central differences.

The claimed gradient is the one that the backward pass returns for the loss L = Σ dout ⊙ output. All operands are drawn
at random in float64, and so is dout. With dout = 1, the gradient of a softmax would be zero and could hide a mistake.
The measured gradient is the numerical one, (L(x + h) − L(x − h)) / 2h, at every index of every operand. The relative
error between the two is

    error = ‖claimed − measured‖ / max(‖claimed‖, ‖measured‖)

For a correct backward pass, rounding and the finite step h cause a relative error of about 1e-10 for one operation, and
of about 1e-9 for a complete model. For an incorrect backward pass, the relative error is of order 1. In the last row of
a case, "each one alone", the gradients are requested one at a time. Each gradient must then equal the one computed when
all are requested, and a gradient that was not requested must not be computed.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from ..ops.numerical_gradient import numerical_gradient, relative_error
from .gradcheck_cases import CASES

TOLERANCE = 1e-7
ALONE = "each one alone"  # name of the row in which each gradient is requested separately


class Row(NamedTuple):
    name: str  # name of the case
    operand: str  # the operand whose gradient is checked
    seed: int
    error: float  # the relative error in norm; inf if a gradient is missing or has the wrong shape
    n_checked: int  # number of entries that are compared

    @property
    def passes(self):
        """Whether the error is within the tolerance; False for NaN."""
        return self.error <= TOLERANCE


def gradcheck(seeds=(0, 1), only=""):
    """Check every case, or only the cases whose names contain `only`.

    Parameters
    ----------
    seeds : iterable of int; each gives different weights, inputs, masks and output gradients
    only : str, a substring of the names of the cases to check

    Returns
    -------
    list of Row
    """
    names = [name for name in CASES if only in name]
    if not names:
        raise ValueError(f"only: no case's name contains {only!r}; the cases are {', '.join(CASES)}")
    return [row for name in names for seed in seeds for row in check_case(name, seed)]


def check_case(name, seed):
    """Check one case for one seed; return its Rows."""
    case, doutput = draw_case(name, seed)
    operands = tuple(case.operands)
    claimed, measured = claimed_gradients(case, doutput, operands), measured_gradients(case, doutput)
    groups = {case.together: operands} if case.together else {operand: (operand,) for operand in operands}
    errors = {label: difference(pick(claimed, group), pick(measured, group)) for label, group in groups.items()}
    if case.selective:
        groups[ALONE], errors[ALONE] = operands, 0.0
        for wanted in [(), *((operand,) for operand in operands)]:
            got = claimed_gradients(case, doutput, wanted)
            errors[ALONE] = np.maximum(errors[ALONE], difference(pick(got, operands), pick(claimed, wanted)))
    sizes = {operand: array.size for operand, array in case.operands.items()}
    return [Row(name, label, seed, float(errors[label]), sum(map(sizes.get, group))) for label, group in groups.items()]


def draw_case(name, seed):
    """Draw a random case and a random gradient dout of its output."""
    rng = np.random.default_rng(seed)
    case = CASES[name](rng)
    if not case.operands:
        raise ValueError(f"{name}: expected a case with at least one operand")
    output, _ = case.run((), **case.operands, **case.constants)
    return case, rng.normal(size=np.shape(output))


def claimed_gradients(case, doutput, wanted):
    """The gradients that the backward pass computes."""
    return case.run(wanted, **case.operands, **case.constants)[1](doutput)


def measured_gradients(case, doutput):
    """The gradients from central differences of the forward pass."""

    def loss(operand, array):
        output, _ = case.run((), **{**case.operands, operand: array}, **case.constants)
        return np.sum(doutput * output)

    return {name: numerical_gradient(partial(loss, name), a) for name, a in case.operands.items()}


def pick(grads, operands):
    """The gradients of the given operands, except those that are None or missing."""
    return {operand: grads[operand] for operand in operands if grads.get(operand) is not None}


def difference(got, expected):
    """The relative error between two dicts of gradients, each concatenated; inf if names or shapes do not match."""
    if {name: np.shape(a) for name, a in got.items()} != {name: np.shape(a) for name, a in expected.items()}:
        return math.inf
    flat = [np.concatenate([np.zeros(0), *(side[name].ravel() for name in got)]) for side in (got, expected)]
    return relative_error(*flat)


# ---------------------------------------------------------------- the report


def failures(rows):
    """The rows whose error is above the tolerance."""
    return [row for row in rows if not row.passes]


def format_rows(rows):
    """Format the rows as a table for the terminal; rows above the tolerance end in FAIL."""
    lines = [("case", "operand", "seed", "numbers", "error", "")]
    for row in rows:
        numbers = str(row.seed), str(row.n_checked), f"{row.error:.1e}"
        lines.append((row.name, row.operand, *numbers, "" if row.passes else "FAIL"))
    widths = [max(map(len, column)) for column in zip(*lines)]
    line = "  ".join(f"{{:{side}{width}}}" for side, width in zip("<<>>><", widths))
    return "\n".join(line.format(*cells).rstrip() for cells in lines)


def rows_to_dicts(rows):
    """Convert the rows to plain dicts for JSON; an error of inf or NaN, which JSON lacks, becomes None."""
    errors = [row.error if math.isfinite(row.error) else None for row in rows]
    return [row._asdict() | {"error": error, "passed": row.passes} for row, error in zip(rows, errors)]
