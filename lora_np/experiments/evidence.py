"""Decide whether a claim holds: compare the 95 % interval of the mean over seeds with the claim's bound."""

from typing import NamedTuple

import numpy as np

HOLDS, FAILS, UNKNOWN = "holds here", "does not hold here", "cannot tell"
EQUAL = 0.01  # nats; losses that differ by at most this amount are treated as equal (about one point of accuracy here)


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float | None  # None with one seed
    high: float | None


def interval(values, log=False):
    """Return the mean over seeds and its 95 % confidence interval, by Student's t.

    Parameters
    ----------
    values : sequence of n floats, one per seed; to compare two methods, their difference for each seed
    log : bool, whether to average the logarithms, as for ratios; the mean is then geometric, so 2 and 1/2 average to 1

    Returns
    -------
    Interval, mean ± t(0.975; n − 1) · s/√n with s the standard deviation
    """
    from scipy.stats import t

    if log:
        return Interval(*(None if x is None else float(np.exp(x)) for x in interval(np.log(values))))
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values: got shape {values.shape}, expected one number per seed")
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Interval(mean, None, None)
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def check(statement, values, at_least=None, at_most=None, unit="", every=False):
    """Check one part of a claim: compare the confidence interval of a mean with a bound.

    Parameters
    ----------
    statement : str, what is measured
    values : sequence of floats, one per seed
    at_least, at_most : float, the claim's bound; exactly one of the two is not None
    unit : str; "times" for ratios, whose mean is geometric
    every : bool, whether the claim concerns every value rather than the mean, so that one counterexample refutes it

    Returns
    -------
    dict, ready for JSON; "verdict" is HOLDS if the entire interval is on the claim's side of the bound, FAILS if
        it is entirely on the other side, and UNKNOWN otherwise. With one seed, the verdict on a mean is UNKNOWN
    """
    if (at_least is None) == (at_most is None):
        raise ValueError("at_least, at_most: expected exactly one of the two")
    values = [float(value) for value in values]
    mean, low, high = interval(values, log=unit == "times")
    least, most = (min(values), max(values)) if every else (low, high)
    if least is None:
        verdict = UNKNOWN
    elif at_least is not None:
        verdict = HOLDS if least >= at_least else FAILS if every or most < at_least else UNKNOWN
    else:
        verdict = HOLDS if most <= at_most else FAILS if every or least > at_most else UNKNOWN
    part = {"statement": statement, "unit": unit, "values": values, "mean": mean, "low": low, "high": high}
    bound = {"at_least": at_least} if at_least is not None else {"at_most": at_most}
    return part | bound | {"every": every, "verdict": verdict}


def compare(statement, rows, first, second, **bound):
    """Check the difference first − second; `rows` is a dict, method -> list of values, one per seed."""
    return check(statement, np.subtract(rows[first], rows[second]), **bound)


def as_good(statement, losses, first, second):
    """Check that the first method's loss exceeds the second's by at most EQUAL."""
    return compare(statement, losses, first, second, at_most=EQUAL, unit="nats")


def ahead(statement, accuracies, first, second, by=0.0):
    """Check that the first method's accuracy in % is at least `by` points above the second's."""
    return compare(statement, accuracies, first, second, at_least=by, unit="points")


def verdict(checks):
    """The verdict on a claim from its checks: it fails if any check fails, and holds if all of them hold."""
    verdicts = {part["verdict"] for part in checks}
    return FAILS if FAILS in verdicts else UNKNOWN if UNKNOWN in verdicts or not verdicts else HOLDS


def format_check(part):
    """Format a check as one line of text."""
    return f"{part['statement']}: {format_interval(part)}, expected {format_bound(part)}: {part['verdict']}"


def format_bound(part):
    """Format a check's bound."""
    bound = f"≥ {part['at_least']:g}" if "at_least" in part else f"≤ {part['at_most']:g}"
    return bound + " in every case" * part["every"]


def format_interval(part):
    """Format a check's mean and interval, with the unit."""
    unit = f" {part['unit']}" if part["unit"] else ""
    between = "" if part["low"] is None else f" [{part['low']:.3g}, {part['high']:.3g}]"
    return f"{part['mean']:.3g}{between}{unit}"
