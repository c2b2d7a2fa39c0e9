"""Loss and accuracy over a set of batches."""

import math

import numpy as np

from ..model import loss_and_gradients, predict_logits
from ..ops import IGNORE_INDEX, cross_entropy_forward, target_weights


def evaluate(params, batches, config, adapter=None, class_weights=None):
    """Mean loss over all real targets of all batches, and a classifier's accuracy.

    Parameters
    ----------
    params : dict of the base weights
    batches : iterable of Batch
    config : ModelConfig or LlamaConfig
    adapter : Adapter or None
    class_weights : array (n_classes,) or None, of the loss alone; see `cross_entropy_forward`

    Returns
    -------
    dict: "loss" in nats per target, and for a classifier "accuracy" in 0 to 1

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    """
    if not config.n_classes:
        return {"loss": mean_loss(loss_and_gradients(params, batch, config, adapter) for batch in batches)}
    total = weight_sum = loss_sum = correct = 0
    for logits, targets in predict_logits(params, batches, config, adapter):
        real = targets != IGNORE_INDEX
        loss, _ = cross_entropy_forward(logits, targets, wanted=(), weights=class_weights)
        weight = target_weights(targets, class_weights).sum().item()
        loss_sum += weight * float(loss)
        correct += int(np.sum((logits.argmax(axis=-1) == targets) & real))
        weight_sum += weight
        total += int(real.sum())
    if not total:
        raise ValueError("batches: got none, expected at least one to evaluate on")
    return {"loss": loss_sum / weight_sum, "accuracy": correct / total}


def mean_loss(results):
    """The mean over all targets of several batches, from the Objective of each."""
    total = loss_sum = 0
    for result in results:
        loss_sum += result.n_targets * result.loss
        total += result.n_targets
    if not total:
        raise ValueError("batches: got none, expected at least one to evaluate on")
    if not math.isfinite(loss_sum):
        raise FloatingPointError("the logits became nan or infinite; the weights are damaged or far too large")
    return loss_sum / total
