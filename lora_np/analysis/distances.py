"""How far apart two models are: in their weights, and in what they answer."""

import math
from typing import NamedTuple

import numpy as np

from .checked import finite_array


class PerLayer(NamedTuple):
    layers: dict[str, float]  # by the array's name
    overall: float  # of all arrays together, as of one long vector; not the mean


# ---------------------------------------------------------------- weights


def weight_distances(before, after):
    """‖after − before‖ / ‖before‖ in Frobenius norm.

    Parameters
    ----------
    before, after : dicts of arrays or of quantised weights. Names that only one of them has are left out, as in
        `weight_updates`. Any two flat dicts will do: {"logits": …} says how far apart two models are in what they
        answer, and records of activations, from `forward` on one batch, how far inside. (Without the attention's
        scores, which are −∞ where the mask is.)

    Returns
    -------
    PerLayer, in `before`'s order. An array of zeros that has not moved is at distance 0, one that has (a bias that
    began at zero) at an infinite distance.

    Raises
    ------
    ValueError
        For no name in common, different shapes, or values that are not finite.
    """
    common = [name for name in before if name in after]
    if not common:
        raise ValueError("after: has no name in common with before, expected the same model's names")
    moved, size = {}, {}  # norms by name
    for name in common:
        old, new = pair_of(name, before[name], after[name])
        moved[name], size[name] = float(np.linalg.norm(new - old)), float(np.linalg.norm(old))
    layers = {name: ratio(moved[name], size[name]) for name in common}
    return PerLayer(layers, ratio(math.hypot(*moved.values()), math.hypot(*size.values())))


def update_cosines(first, second):
    """⟨ΔW₁, ΔW₂⟩ / (‖ΔW₁‖ ‖ΔW₂‖): whether two runs have moved the weights the same way.

    For n numbers a random pair has a cosine near 0, with standard deviation 1/√n.

    Parameters
    ----------
    first, second : dicts of updates, from `weight_updates`, `linear_updates` or `adapter_deltas`. A name that one
        of them lacks is a layer that it does not move: an update of zero

    Returns
    -------
    PerLayer in [−1, 1], in `first`'s order. Layers that one of the two does not move have no cosine and are left
    out; `overall` takes them into account.

    Raises
    ------
    ValueError
        For no name in common, an update that is zero in all layers, different shapes, or values that are not finite.
    """
    common = [name for name in first if name in second]
    if not common:
        raise ValueError("second: has no name in common with first, expected updates of the same model")
    norms_1, norms_2 = update_norms(first, "first"), update_norms(second, "second")
    products = {name: float(np.vdot(*pair_of(name, first[name], second[name]))) for name in common}
    layers = {
        name: within_one(products[name] / norms_1[name] / norms_2[name])
        for name in common
        if norms_1[name] and norms_2[name]
    }
    size = math.hypot(*norms_1.values()) * math.hypot(*norms_2.values())
    return PerLayer(layers, within_one(sum(products.values()) / size))


def update_norms(updates, argument):
    """Frobenius norms by name, of which one at least is above zero."""
    norms = {name: float(np.linalg.norm(finite_array(update, name))) for name, update in updates.items()}
    if not any(norms.values()):
        raise ValueError(f"{argument}: is zero in all layers and has no direction")
    return norms


def pair_of(name, one, other):
    """Two models' arrays of one name, in float64."""
    if np.shape(one) != np.shape(other):
        raise ValueError(f"{name}: got shapes {np.shape(one)} and {np.shape(other)}, expected the same")
    return finite_array(one, name), finite_array(other, name)


def ratio(moved, size):
    if size:
        return moved / size
    return math.inf if moved else 0.0


def within_one(cosine):
    """Without what rounding adds beyond ±1."""
    return max(-1.0, min(1.0, cosine))


# ---------------------------------------------------------------- outputs


def mean_kl(logits, other):
    """KL(p ‖ q) = Σ_i p_i (ln p_i − ln q_i), averaged over rows, with p and q the softmax of the two arrays' rows.

    It is not symmetric. With the base's logits first, it is what forgetting costs on the base's own predictions: the
    extra nats per row of coding with the tuned model what the base model says.

    Parameters
    ----------
    logits, other : arrays (..., K) of two models on the same inputs. Take out the rows of padding first:
        `logits[mask]`

    Returns
    -------
    float, nats per row, at least 0

    Raises
    ------
    ValueError
        For different shapes, no rows, or values that are not finite.
    """
    logits, other = same_rows(logits, other)
    log_p, log_q = log_softmax(logits), log_softmax(other)  # (..., K)
    divergence = np.vecdot(np.exp(log_p), log_p - log_q).mean()
    return max(0.0, float(divergence))  # rounding may go below


def argmax_agreement(logits, other):
    """The share of rows in which two models' largest logits are at the same place; the first of equal ones counts.

    Parameters
    ----------
    logits, other : see `mean_kl`

    Returns
    -------
    float in [0, 1]
    """
    logits, other = same_rows(logits, other)
    return float(np.mean(logits.argmax(axis=-1) == other.argmax(axis=-1)))


def same_rows(logits, other):
    logits, other = finite_array(logits, "logits"), finite_array(other, "other")
    if not logits.ndim:
        raise ValueError("logits: got a single number, expected shape (..., K)")
    if logits.shape != other.shape:
        raise ValueError(f"other: got shape {other.shape}, expected {logits.shape} as logits'")
    return logits, other


def log_softmax(x):
    """ln p_i = (x_i − max) − ln Σ_j exp(x_j − max): no huge logit overflows, no tiny p becomes ln 0."""
    x = x - x.max(axis=-1, keepdims=True)  # (..., K)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
