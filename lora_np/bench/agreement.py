"""Check that two backends compute the same, before anything is timed."""

from typing import NamedTuple

import numpy as np

LOSS = 3e-6  # largest relative difference of two losses; 3e-7 is typical
ARRAYS = 3e-5  # largest relative difference, in norm, of two gradients or logits; 4e-6 is typical
LOSSES = 1e-4  # largest difference of the first steps' losses, which depend on the optimisers, relative to the largest

# Zero in theory, because softmax ignores a number added to all scores, and rounding errors in practice: compared with
# the norm of all gradients.
ZERO = "k_proj.bias"


class Outcome(NamedTuple):
    """A backend's answers about a case: loss and arrays of its `check`, losses of its first steps, and versions."""

    loss: float
    arrays: dict
    losses: list
    versions: dict | None = None


class Agreement(NamedTuple):
    """How far a peer's Outcome is from lora_np's."""

    problem: str  # "" where the two agree
    loss_error: float
    array_error: float  # the largest, see `array_errors`
    worst: str  # the name of that array
    losses_error: float


def compare(got, expected):
    """The Agreement of a peer's Outcome with lora_np's."""
    loss_error = relative_to(abs(got.loss - expected.loss), abs(expected.loss))
    # A classifier may learn a few rows in one step: then the last loss is small, but its rounding error is not.
    differences = [abs(a - b) for a, b in zip(got.losses, expected.losses)]
    losses_error = float(relative_to(np.max(differences, initial=0.0), np.max(expected.losses, initial=0.0)))
    errors = array_errors(got.arrays, expected.arrays)
    worst = max(errors, key=errors.get, default="")
    array_error, problem = errors.get(worst, 0.0), ""
    only_one = sorted(set(got.arrays) ^ set(expected.arrays))
    if only_one:
        problem = f"only one backend has {', '.join(only_one[:3])}"
    elif not loss_error <= LOSS:  # also true for NaN
        problem = f"its loss is {got.loss:.7g}, lora_np's {expected.loss:.7g}"
    elif worst == "tokens" and array_error:
        problem = f"{min(array_error, 1.0):.1%} of its tokens differ from lora_np's"
    elif not array_error <= ARRAYS:
        problem = f"its {worst} is off by {array_error:.1e} of its norm (at most {ARRAYS:.0e})"
    elif not losses_error <= LOSSES:
        problem = f"its first steps' losses are {got.losses}, lora_np's {expected.losses}"
    return Agreement(problem, loss_error, array_error, worst, losses_error)


def array_errors(got, expected):
    """‖got − expected‖ / ‖expected‖ of each array, or the share of tokens that differ; inf for NaN.

    The error is also inf for an array that only one backend has, or whose shapes differ.
    """
    norms = {name: float(np.linalg.norm(array)) for name, array in expected.items()}
    norm_of_all = float(np.linalg.norm(list(norms.values())))
    errors = dict.fromkeys([*expected, *got], float("inf"))
    for name in expected.keys() & got.keys():
        if got[name].shape != expected[name].shape:
            continue
        if name == "tokens":
            error = float(np.mean(got[name] != expected[name]))
        else:
            scale = norm_of_all if name.endswith(ZERO) else norms[name]
            error = relative_to(float(np.linalg.norm(got[name] - expected[name])), scale)
        errors[name] = error if np.isfinite(error) else float("inf")
    return errors


def relative_to(difference, scale):
    """difference / scale, and 0 where both are 0."""
    return difference / scale if scale else difference
