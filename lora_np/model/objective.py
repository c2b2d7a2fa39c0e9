"""The loss of a batch and its gradients: forward pass, cross-entropy and backward pass in one call."""

from typing import NamedTuple

import numpy as np

from ..ops import IGNORE_INDEX, cross_entropy_backward, cross_entropy_forward
from .passes import backward, forward


class Objective(NamedTuple):
    loss: float  # mean over the real targets, in nats
    n_targets: int  # number of real targets: the weight of this mean in a mean over several batches
    grads: dict[str, np.ndarray]  # of the wanted parameters


def loss_and_gradients(params, batch, config, adapter=None, wanted=(), masks=None):
    """The loss of one batch and the gradients of the wanted parameters.

    Parameters
    ----------
    params : dict of the base weights
    batch : an object with the fields ids (B, T), targets ((B, T) or (B,)) and lengths (B,)
    config : ModelConfig
    adapter : Adapter or None
    wanted : names of the parameters whose gradients to compute
    masks : dict from `draw_masks`, or None

    Returns
    -------
    Objective
    """
    logits, cache = forward(
        params, batch.ids, config, lengths=batch.lengths, adapter=adapter, wanted=wanted, masks=masks
    )
    loss, loss_cache = cross_entropy_forward(logits, batch.targets, wanted=("logits",) if wanted else ())
    n_targets = int(np.count_nonzero(batch.targets != IGNORE_INDEX))
    grads = backward(cross_entropy_backward(1.0, loss_cache).dlogits, cache) if wanted else {}
    return Objective(float(loss), n_targets, grads)


def predict_logits(params, batches, config, adapter=None):
    """Logits and targets of every batch, without dropout and without a cache for gradients.

    Returns
    -------
    iterator of (logits, targets), one pair for each batch

    Raises
    ------
    FloatingPointError
        If logits are not finite.
    """
    for batch in batches:
        logits, _ = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter)
        if not np.isfinite(logits).all():
            raise FloatingPointError("the logits became nan or infinite; the weights are damaged or far too large")
        yield logits, batch.targets
