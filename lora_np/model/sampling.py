"""Choose the next token: from logits to probabilities to a token."""

from dataclasses import dataclass

import numpy as np

from ..checked import check_fields, finite_number, whole_number
from ..ops import softmax_forward


@dataclass(frozen=True)
class Sampling:
    """The settings for choosing the next token. They are applied in the order below; each is off by default.

    Parameters
    ----------
    repetition_penalty : float above 0, for tokens that are already in the text: their logits are divided by it if
        they are positive, and multiplied by it if they are negative (Keskar et al. 2019, section 4.1). 1: off
    temperature : float; logits are divided by it. 0: the most probable token is always chosen. 1: off
    top_k : int or None; only the k most probable tokens, and any others as probable as the k-th, can be drawn (Fan et
        al. 2018)
    top_p : float in (0, 1] or None; tokens are drawn only from the nucleus, the smallest set of most probable tokens
        whose probabilities sum to at least p (Holtzman et al. 2020, section 3.1)

    Raises
    ------
    ValueError
        If a field is invalid; the message names the field, its value and what was expected.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self):
        check_fields(self, finite_number, "temperature", least=0)
        check_fields(self, finite_number, "repetition_penalty", above=0)
        if self.top_k is not None:
            check_fields(self, whole_number, "top_k")
        if self.top_p is not None:
            check_fields(self, finite_number, "top_p", above=0, most=1)


GREEDY = Sampling(temperature=0.0)


def choose(logits, ids, sampling, rng=None):
    """The next token of each row, (B,) int64; see `next_probabilities` and `draw` for the arguments."""
    if sampling.temperature == 0:
        return penalise(logits, ids, sampling.repetition_penalty).argmax(axis=-1)
    return draw(next_probabilities(logits, ids, sampling), rng)


def next_probabilities(logits, ids, sampling):
    """The probabilities from which the next token is drawn.

    Parameters
    ----------
    logits : array (B, V), of the last position
    ids : int array (B, T), the text so far
    sampling : Sampling

    Returns
    -------
    array (B, V), in which each row sums to 1; at temperature 0, each row has a single 1, at the most probable token

    Raises
    ------
    FloatingPointError
        If probabilities are not finite.
    """
    logits = penalise(logits, ids, sampling.repetition_penalty)
    if sampling.temperature == 0:
        probs = np.zeros_like(logits)
        probs[np.arange(len(logits)), logits.argmax(axis=-1)] = 1
        return probs
    # Shift each row's largest logit to 0 first, so that it is still finite after division by a tiny temperature.
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
    """Make the tokens that are already in the text less probable: logits (B, V), ids (B, T)."""
    if penalty == 1.0:
        return logits
    rows = np.arange(len(ids))[:, None]
    seen = logits[rows, ids]  # (B, T)
    penalised = logits.copy()
    with np.errstate(over="ignore"):
        penalised[rows, ids] = np.where(seen > 0, seen / penalty, seen * penalty)
    return penalised


def keep_top_k(logits, k):
    """Set logits (B, V) below the k-th largest in their row to -inf."""
    k = min(k, logits.shape[-1])
    kth = np.partition(logits, -k, axis=-1)[:, -k, None]  # (B, 1)
    return np.where(logits < kth, -np.inf, logits)


def keep_top_p(logits, p):
    """Set logits (B, V) outside the nucleus to -inf: keep a token if all larger probabilities sum to less than p."""
    order = np.argsort(-logits, axis=-1, kind="stable")  # (B, V), the most probable first
    probs = np.take_along_axis(softmax_forward(logits)[0], order, axis=-1)
    # The total probability of all more probable tokens: 0 for the first token, which is always kept. The sum is in
    # float64, because many probabilities are tiny.
    before = np.cumsum(probs, axis=-1, dtype=np.float64) - probs
    stays = np.empty(logits.shape, dtype=bool)
    np.put_along_axis(stays, order, before < p, axis=-1)
    return np.where(stays, logits, -np.inf)


def draw(probs, rng):
    """Draw one token for each row, (B,) int64, by inverting the cumulative distribution.

    `probs` is (B, V). B random numbers are drawn from `rng`, an np.random.Generator.
    """
    cumulative = np.cumsum(probs, axis=-1, dtype=np.float64)  # (B, V)
    # Because of rounding, the last entry may be below 1. The random numbers are multiplied by that entry, so they never
    # exceed it.
    threshold = rng.random(len(probs))[:, None] * cumulative[:, -1:]
    return np.count_nonzero(cumulative <= threshold, axis=-1)
