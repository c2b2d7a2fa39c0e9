"""Choosing the next token: from logits to probabilities to a draw."""

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np

from ..ops import softmax_forward


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. The four settings act in this order, and each is off by default.

    Parameters
    ----------
    repetition_penalty : float above 0; logits of tokens that are in the text already are divided by it where they
        are positive and multiplied by it where they are negative (Keskar et al. 2019, section 4.1). 1: off
    temperature : float; logits are divided by it. 0: the most probable token, nothing is drawn. 1: off
    top_k : int or None; only the k most probable tokens stay (Fan et al. 2018), and those as probable as the k-th
    top_p : float in (0, 1] or None; only the fewest most probable tokens whose probabilities add up to p stay
        (Holtzman et al. 2020, section 3.1)

    Raises
    ------
    ValueError
        At construction, naming the field, what came and what was expected.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self):
        for name in ("temperature", "repetition_penalty", "top_p"):
            value = getattr(self, name)
            if name == "top_p" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < math.inf:
                raise ValueError(f"{name}: got {value!r}, expected a number of at least 0")
            if value == 0 and name != "temperature":
                raise ValueError(f"{name}: got {value!r}, expected a number above 0")
            object.__setattr__(self, name, float(value))  # NumPy's scalars would turn float32 into float64
        if self.top_p is not None and self.top_p > 1:
            raise ValueError(f"top_p: got {self.top_p}, expected a number above 0 and at most 1")
        k = self.top_k
        if k is not None and (isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1):
            raise ValueError(f"top_k: got {k!r}, expected a whole number of at least 1, or None")


GREEDY = Sampling(temperature=0.0)


def choose(logits, ids, sampling, rng=None):
    """The next token of each row, (B,) int64; for the arguments see `next_probabilities` and `draw`."""
    if sampling.temperature == 0:
        return penalise(logits, ids, sampling.repetition_penalty).argmax(axis=-1)
    return draw(next_probabilities(logits, ids, sampling), rng)


def next_probabilities(logits, ids, sampling):
    """What the next token is drawn from.

    Parameters
    ----------
    logits : array (B, V), of the last position
    ids : int array (B, T), the text so far
    sampling : Sampling

    Returns
    -------
    array (B, V), rows that add up to 1; at temperature 0 a single 1, at the most probable token
    """
    logits = penalise(logits, ids, sampling.repetition_penalty)
    if sampling.temperature == 0:
        probs = np.zeros_like(logits)
        probs[np.arange(len(logits)), logits.argmax(axis=-1)] = 1
        return probs
    # The greatest logit of each row is moved to 0 first: the colder, the further down the others go, and it stays.
    temperature = max(sampling.temperature, float(np.finfo(logits.dtype).tiny))
    with np.errstate(over="ignore", invalid="ignore"):
        logits = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None and sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    probs, _ = softmax_forward(logits)
    if not np.isfinite(probs).all():
        raise FloatingPointError(f"the probabilities of the next token are not finite with {sampling}")
    return probs


def penalise(logits, ids, penalty):
    """Make the tokens of a text less probable: (B, V) logits, (B, T) ids."""
    if penalty == 1.0:
        return logits
    rows = np.arange(len(ids))[:, None]
    seen = logits[rows, ids]  # (B, T)
    penalised = logits.copy()
    with np.errstate(over="ignore"):
        penalised[rows, ids] = np.where(seen > 0, seen / penalty, seen * penalty)
    return penalised


def keep_top_k(logits, k):
    """-inf for all logits (B, V) below the k-th largest of their row."""
    k = min(k, logits.shape[-1])
    kth = np.partition(logits, -k, axis=-1)[:, -k, None]  # (B, 1)
    return np.where(logits < kth, -np.inf, logits)


def keep_top_p(logits, p):
    """-inf for all logits (B, V) outside of the nucleus: a token stays if those more probable add up to less than p."""
    order = np.argsort(-logits, axis=-1, kind="stable")  # (B, V), the most probable first
    probs = np.take_along_axis(softmax_forward(logits)[0], order, axis=-1)
    # The sum of all that are more probable: 0 for the first, which always stays. In float64: many are tiny.
    before = np.cumsum(probs, axis=-1, dtype=np.float64) - probs
    stays = np.empty(logits.shape, dtype=bool)
    np.put_along_axis(stays, order, before < p, axis=-1)
    return np.where(stays, logits, -np.inf)


def draw(probs, rng):
    """One token a row, (B,) int64, by the inverse of the cumulative distribution.

    Parameters
    ----------
    probs : array (B, V)
    rng : np.random.Generator; B numbers are taken from it
    """
    cumulative = np.cumsum(probs, axis=-1, dtype=np.float64)  # (B, V)
    # Times the last entry, which rounding keeps from being 1: a draw must not lie beyond it.
    threshold = rng.random(len(probs))[:, None] * cumulative[:, -1:]
    return np.count_nonzero(cumulative <= threshold, axis=-1)
