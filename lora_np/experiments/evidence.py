"""Statistics of the experiments: intervals, equivalence within a margin, power, and the verdict on a comparison.

Each seed has a test set of its own (a fold), so a seed's score varies for two reasons at once: the seed and the
snippets. The mixed model of this nested design has random effects for the seeds, and for the snippets within a seed.
The design is balanced, so the model's interval is Student's t interval over the seeds, which is computed here. Where
all seeds share one test set, the effects of seeds and snippets are crossed; see `crossed`.

The folds share most of their training snippets, so the seeds are not quite independent, and the interval may be too
narrow. Nadeau and Bengio (2003) correct for this by multiplying the standard error by √(1 + n p), with n folds and p
the ratio of the sizes of the test and the training set. Here, the corrected error is an upper bound, because a fold's
score depends more on its seed than on its training set. Each comparison on folds says whether its verdict survives the
correction."""

import math
from typing import NamedTuple

import numpy as np

DIFFERENT, EQUIVALENT, BOTH = "different", "equivalent", "different, but equivalent within the margin"
KNOWN, UNKNOWN = "known", "cannot tell"
TIMES = 1.5  # a ratio is known if its interval spans at most this factor
LEVEL = 0.95
POWER = 0.8


class Estimate(NamedTuple):
    """The mean of a sample, its standard error, and the degrees of freedom of Student's t distribution."""

    mean: float
    error: float
    freedom: float

    def interval(self, level=LEVEL):
        """The confidence interval (low, high) of the mean; (None, None) without degrees of freedom."""
        from scipy.stats import t

        if not self.freedom:
            return None, None
        half = float(t.ppf((1 + level) / 2, self.freedom) * self.error)
        return self.mean - half, self.mean + half


def estimate(values):
    """The Estimate of the mean of independent values, one per seed."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values: got shape {values.shape}, expected one number per seed")
    n = len(values)
    return Estimate(float(values.mean()), float(values.std(ddof=n > 1) / np.sqrt(n)), n - 1)


def crossed(differences):
    """The Estimate of the mean of differences (S, N), where each of S seeds is tested on the same N snippets.

    The mean varies with the seeds and with the snippets. With the mean squares M of the two-way analysis of variance
    (seeds, snippets and the rest), its variance is

        (M_seeds + M_snippets − M_rest) / (S N),

    and Satterthwaite's formula gives the degrees of freedom. With one seed, only the snippets vary.
    """
    differences = np.asarray(differences, dtype=np.float64)
    (S, N), mean = differences.shape, float(differences.mean())
    if S == 1:
        return Estimate(mean, float(differences.std(ddof=1) / np.sqrt(N)), N - 1)
    of_seeds, of_snippets = differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - of_seeds[:, None] - of_snippets + mean
    freedom = np.array([S - 1, N - 1, (S - 1) * (N - 1)])
    squares = np.array([N * np.sum((of_seeds - mean) ** 2), S * np.sum((of_snippets - mean) ** 2), np.sum(rest**2)])
    squares /= freedom
    variance = max(squares @ (1, 1, -1), *squares[:2])  # at least that of one of the two effects
    n = min(max(variance**2 / np.sum(squares**2 / freedom), S - 1), N - 1) if variance else S - 1
    return Estimate(mean, float(np.sqrt(variance / (S * N))), float(n))


def interval(values, log=False):
    """The mean over seeds and its 95 % confidence interval, as (mean, low, high); see `estimate`.

    With `log`, the logarithms are averaged, as for ratios; the mean is then geometric, so that 2 and 1/2 average to 1.
    """
    if log:
        return tuple(None if x is None else float(np.exp(x)) for x in interval(np.log(values)))
    of_seeds = estimate(values)
    return of_seeds.mean, *of_seeds.interval()


def mean_ratio(values):
    """The geometric mean of ratios, one per seed."""
    return interval(values, log=True)[0]


def compare(design, values, snippets=None, undecided="", overlap=0.0):
    """Judge a comparison.

    Parameters
    ----------
    design : `design.Design`
    values : sequence of floats, one per seed or fold: differences, or ratios, whose mean is geometric
    snippets : array (S, N) of the differences for each seed and snippet, if all seeds have the same test set
    undecided : str, the reason why the values cannot decide anything, if there is one
    overlap : float, the ratio p of the sizes of the test and the training set, if the values are of folds

    Returns
    -------
    dict, ready for JSON. Its "verdict" is
        DIFFERENT if the 95 % interval excludes 0,
        EQUIVALENT if the 90 % interval is within ±margin, which amounts to two one-sided tests (Schuirmann 1987),
        BOTH if both hold,
        KNOWN if a ratio's interval spans at most a factor of TIMES, and
        UNKNOWN otherwise; "undecided" then says why, unless the interval is only too wide.
        "interval_90" of a ratio is that of its logarithm; "detectable" is the difference that would have been found
        with a probability of POWER, or None; "claim" says whether the result "agrees" with the expected one or
        "contradicts" it, or is None if neither can be said; "survives" says whether the verdict is the same with the
        correction for overlap, or is None without overlap
    """
    statement, margin, unit, expected, *_ = design
    values, ratio = [float(value) for value in values], margin is None
    found = estimate(np.log(values) if ratio else values) if snippets is None else crossed(snippets)
    low, high = found.interval()
    part = {"statement": statement, "unit": unit, "margin": margin, "values": values, "mean": found.mean}
    part |= {"low": low, "high": high, "interval_90": list(found.interval(2 * LEVEL - 1))}
    part |= {"detectable": None, "verdict": UNKNOWN, "claim": None, "survives": None}
    part["undecided"] = undecided or "one seed is not enough" * (len(values) == 1)
    if ratio:
        part |= {name: None if part[name] is None else float(np.exp(part[name])) for name in ("mean", "low", "high")}
    if part["undecided"]:
        return part
    part["verdict"], part["claim"] = judge(found, margin), against(expected, found, margin)
    if not ratio:
        part["detectable"] = detectable(found.error, found.freedom)
    if overlap:
        wider = found._replace(error=found.error * np.sqrt(1 + len(values) * overlap))
        part["survives"] = judge(wider, margin) == part["verdict"]
    return part


def judge(found, margin):
    """The verdict on an Estimate; for a ratio, the Estimate is of its logarithm, and `margin` is None."""
    low, high = found.interval()
    if margin is None:
        return KNOWN if high - low <= np.log(TIMES) else UNKNOWN
    different = low > 0 or high < 0
    verdicts = {(True, True): BOTH, (True, False): DIFFERENT, (False, True): EQUIVALENT}
    return verdicts.get((different, is_equal(found, margin)), UNKNOWN)


def is_equal(found, margin):
    """Whether an Estimate's 90 % interval is within ±margin."""
    low, high = found.interval(2 * LEVEL - 1)
    return -margin < low and high < margin


def against(expected, found, margin):
    """Whether an Estimate "agrees" with the `expected` result or "contradicts" it; None if it does neither."""
    low, high = found.interval()
    if expected is None:
        return None
    if expected == "equal":
        agrees, contradicts = is_equal(found, margin), low > 0 or high < 0
    elif margin is None:
        least, most = (None if bound is None else np.log(bound) for bound in expected)
        agrees = (least is None or low >= least) and (most is None or high <= most)
        contradicts = (least is not None and high < least) or (most is not None and low > most)
    else:
        agrees, contradicts = (low > 0, high < 0) if expected == "more" else (high < 0, low > 0)
        contradicts = contradicts or is_equal(found, margin)  # no difference that matters
    return "agrees" if agrees else "contradicts" if contradicts else None


def power(n, scatter, margin, difference=0.0):
    """The probability that an experiment with n seeds shows equivalence, given the true difference.

    `scatter` is the standard deviation of the difference over the seeds. Both one-sided tests succeed if the mean is
    within ±(margin − t e), where t is a quantile of Student's distribution, and e = s/√n is the standard error
    estimated from the seeds. This probability is averaged over the distribution of s, for which s² (n − 1)/scatter² is
    chi-squared.
    """
    from scipy.stats import chi2, norm, t

    quantiles = (np.arange(1000) + 0.5) / 1000
    error = scatter / np.sqrt(n)
    reach = margin - t.ppf(LEVEL, n - 1) * error * np.sqrt(chi2.ppf(quantiles, n - 1) / (n - 1))
    inside = norm.cdf((reach - difference) / error) - norm.cdf((-reach - difference) / error)
    return float(np.mean(np.where(reach > 0, inside, 0.0)))


def detectable(error, freedom):
    """The smallest difference from 0 that is detected with probability POWER, given the mean's standard error."""
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    if not error > 0:
        return 0.0
    bound = t.ppf((1 + LEVEL) / 2, freedom)
    return float(error * brentq(lambda shift: nct.sf(bound, freedom, shift) - POWER, 0, 100))


# ---------------------------------------------------------------- text


def describe(part):
    """A comparison as one line of text."""
    margin = "" if part["margin"] is None else f" (margin: {amount(part['margin'], part['unit'])})"
    return f"{part['statement']}: {format_interval(part)}{margin}: {describe_verdict(part)}"


def describe_verdict(part):
    """The verdict on a comparison; a difference comes with its direction, and "cannot tell" with the reason."""
    if part["verdict"] != UNKNOWN:
        verdict = part["verdict"].replace(DIFFERENT, f"{DIFFERENT}: {'higher' if part['mean'] > 0 else 'lower'}")
        return verdict + " (not with the correction for overlapping folds)" * (part["survives"] is False)
    if part["detectable"] is None:
        return f"{UNKNOWN}: {part['undecided'] or f'the interval spans more than a factor of {TIMES:g}'}"
    return f"{UNKNOWN}: too few seeds to find a difference below {amount(part['detectable'], part['unit'])}"


def format_interval(part):
    """A comparison's mean and interval, with the unit, to two significant digits of half of the interval."""
    half, sign = ((part["high"] or 0) - (part["low"] or 0)) / 2, "" if part["unit"] == "times" else "+"
    style = f"{sign}.{max(0, 1 - math.floor(math.log10(half)))}f" if half > 1e-9 else f"{sign}.3g"
    mean, low, high = (None if part[name] is None else minus(part[name], style) for name in ("mean", "low", "high"))
    return f"{mean} {part['unit']}".rstrip() + ("" if low is None else f" [{low}, {high}]")


def amount(number, unit):
    """Format a positive quantity to two significant digits, with its unit, as "0.02 nats" or "1 point"."""
    return f"{number:.2g} {unit.removesuffix('s') if number == 1 else unit}"


def minus(number, style):
    """Format a number with a minus sign instead of a hyphen, and without a sign if it is rounded to 0."""
    text = f"{number:{style}}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")
