"""How far apart two models are, in weights and in outputs."""

import math
from typing import NamedTuple

import numpy as np

from ..checked import finite_array, same_shape


class PerLayer(NamedTuple):
    layers: dict[str, float]  # by the array's name
    overall: float  # of all arrays together, as one long vector; not the mean


# ---------------------------------------------------------------- weights


def weight_distances(before, after):
    """‖after − before‖ / ‖before‖ in Frobenius norm.

    Parameters
    ----------
    before, after : dicts of arrays or of quantised weights; names that only one of them has are left out. They can be
        any two flat dicts, such as {"logits": …} for outputs, or the activations that `forward` records on one batch.
        (Leave out attention's scores, because masked ones are −∞.)

    Returns
    -------
    PerLayer, in `before`'s order. If an array is zero in `before`, its distance is 0 or infinite.

    Raises
    ------
    ValueError
        If there is no name in common, shapes differ, or values are not finite.
    """
    moved, size = {}, {}  # norms by name
    for name, old, new in common_pairs(before, after, "before", "after"):
        moved[name], size[name] = float(np.linalg.norm(new - old)), float(np.linalg.norm(old))
    layers = {name: ratio(moved[name], size[name]) for name in moved}
    return PerLayer(layers, ratio(math.hypot(*moved.values()), math.hypot(*size.values())))


def update_cosines(first, second):
    """⟨ΔW₁, ΔW₂⟩ / (‖ΔW₁‖ ‖ΔW₂‖): whether two runs have changed the weights in the same direction.

    Two random vectors of n numbers have a cosine near 0, with standard deviation 1/√n.

    Parameters
    ----------
    first, second : dicts of updates, from `weight_updates`, `linear_updates` or `adapter_deltas`; a missing name means
        an update of zero

    Returns
    -------
    PerLayer in [−1, 1], in `first`'s order. Layers that only one of the two runs changed have no cosine and are left
    out, but count in `overall`.

    Raises
    ------
    ValueError
        If there is no name in common, all updates of a run are zero, shapes differ, or values are not finite.
    """
    products = {name: float(np.vdot(*pair)) for name, *pair in common_pairs(first, second, "first", "second")}
    norms_1, norms_2 = update_norms(first, "first"), update_norms(second, "second")
    layers = {
        name: clipped_cosine(product / norms_1[name] / norms_2[name])
        for name, product in products.items()
        if norms_1[name] and norms_2[name]
    }
    size = math.hypot(*norms_1.values()) * math.hypot(*norms_2.values())
    return PerLayer(layers, clipped_cosine(sum(products.values()) / size))


def common_pairs(one, other, one_name, other_name):
    """Yield (name, the two arrays in float64) for each name that both dicts have."""
    common = [name for name in one if name in other]
    if not common:
        raise ValueError(f"{other_name}: has no name in common with {one_name}, expected the names of the same model")
    for name in common:
        same_shape(f"{other_name}[{name!r}]", other[name], one[name])
        yield name, finite_array(name, one[name]), finite_array(name, other[name])


def update_norms(updates, argument):
    """Frobenius norms by name; ValueError if all are zero."""
    norms = {name: float(np.linalg.norm(finite_array(name, update))) for name, update in updates.items()}
    if not any(norms.values()):
        raise ValueError(f"{argument}: is zero in all layers and has no direction")
    return norms


def ratio(moved, size):
    if size:
        return moved / size
    return math.inf if moved else 0.0


def clipped_cosine(cosine):
    """The cosine, limited to [−1, 1], which rounding may exceed."""
    return max(-1.0, min(1.0, cosine))


# ---------------------------------------------------------------- outputs


def mean_kl(logits, other):
    """KL(p ‖ q) = Σ_i p_i (ln p_i − ln q_i), averaged over rows, with p and q the softmax of the two arrays' rows.

    It is not symmetric. With the base's logits first, it measures forgetting: the extra nats per row for coding the
    base's predictions with the tuned model.

    Parameters
    ----------
    logits, other : arrays (..., K) of two models on the same inputs. Remove padding first: `logits[mask]`

    Returns
    -------
    float, nats per row, at least 0

    Raises
    ------
    ValueError
        For different shapes, no rows, or values that are not finite.
    """
    log_p, log_q = (log_softmax(x) for x in same_rows(logits, other))  # (..., K)
    divergence = np.vecdot(np.exp(log_p), log_p - log_q).mean()
    return max(0.0, float(divergence))  # rounding may make it negative


def argmax_agreement(logits, other):
    """The share of rows in which two models' largest logits have the same index; of equal logits the first counts.

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
    logits, other = finite_array("logits", logits), finite_array("other", other)
    if not logits.ndim:
        raise ValueError("logits: got a single number, expected shape (..., K)")
    same_shape("other", other, logits)
    return logits, other


def log_softmax(x):
    """ln p_i = (x_i − max) − ln Σ_j exp(x_j − max): no huge logit overflows, no tiny p becomes ln 0."""
    x = x - x.max(axis=-1, keepdims=True)  # (..., K)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
