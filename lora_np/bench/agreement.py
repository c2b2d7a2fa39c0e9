"""Check that two backends compute the same results, before anything is timed."""

from typing import NamedTuple

import numpy as np

LOSS = 3e-6  # largest accepted relative difference between two losses; 3e-7 is typical
ARRAYS = 6e-5  # the same, in norm, for two arrays of gradients or logits; 4e-6 is typical, 4e-5 for BERT in PyTorch
LOSSES = 1e-4  # the same for the losses of the first training steps, relative to the largest loss

# This gradient is zero in theory, because softmax ignores a constant added to all scores. In practice it consists of
# rounding errors, so its error is measured relative to the norm of all gradients.
ZERO = "k_proj.bias"


class Outcome(NamedTuple):
    """A backend's results: the loss and arrays of its `check`, the losses of its first steps, and package versions."""

    loss: float
    arrays: dict
    losses: list
    versions: dict | None = None


class Agreement(NamedTuple):
    """The differences between a peer's Outcome and lora_np's Outcome."""

    problem: str  # "" if the two agree
    loss_error: float
    array_error: float  # the largest of `array_errors`
    worst: str  # the name of the array with this error
    losses_error: float


def compare(got, expected):
    """Compare a peer's Outcome with lora_np's and return the Agreement."""
    loss_error = abs(got.loss - expected.loss) / (abs(expected.loss) or 1.0)
    # A classifier may fit a small batch in one step. The last loss is then small, but its rounding error is not.
    differences = [abs(a - b) for a, b in zip(got.losses, expected.losses)]
    losses_error = float(np.max(differences, initial=0.0) / (np.max(expected.losses, initial=0.0) or 1.0))
    errors, problem = array_errors(got.arrays, expected.arrays), ""
    worst = max(errors, key=errors.get)
    array_error = errors[worst]
    if only_one := sorted(set(got.arrays) ^ set(expected.arrays)):
        problem = f"only one backend has {', '.join(only_one[:3])}"
    elif not loss_error <= LOSS:  # also true for NaN
        problem = f"its loss is {got.loss:.7g}, but lora_np's is {expected.loss:.7g}"
    elif worst == "tokens" and array_error:
        problem = f"{min(array_error, 1.0):.1%} of its tokens differ from lora_np's"
    elif not array_error <= ARRAYS:
        problem = f"its {worst} differs from lora_np's by {array_error:.1e} of the norm (tolerance {ARRAYS:.0e})"
    elif not losses_error <= LOSSES:
        problem = f"the losses of its first steps are {got.losses}, but lora_np's are {expected.losses}"
    return Agreement(problem, loss_error, array_error, worst, losses_error)


def array_errors(got, expected):
    """Return the error of each expected array: ‖got − expected‖ / ‖expected‖, or the share of tokens that differ.

    The error is inf if an array is missing, has a different shape or contains NaN.
    """
    norm_of_all = np.linalg.norm([np.linalg.norm(array) for array in expected.values()])
    errors = dict.fromkeys(expected, float("inf"))
    for name, array in expected.items():
        if name not in got or got[name].shape != array.shape:
            continue
        if name == "tokens":
            error = np.mean(got[name] != array)
        else:
            scale = norm_of_all if name.endswith(ZERO) else np.linalg.norm(array)
            error = np.linalg.norm(got[name] - array) / (scale or 1.0)
        errors[name] = float(error) if np.isfinite(error) else float("inf")
    return errors
