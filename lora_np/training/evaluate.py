"""Loss and accuracy over a set of batches."""

import numpy as np

from ..model import predict_logits
from ..ops import IGNORE_INDEX, cross_entropy_forward, target_weights


def evaluate(params, batches, config, adapter=None, class_weights=None):
    """Mean loss and accuracy over all real targets of all batches.

    Parameters
    ----------
    params : dict of the base weights
    batches : iterable of Batch
    config : ModelConfig
    adapter : Adapter or None
    class_weights : array (n_classes,) or None, of the loss alone; see `cross_entropy_forward`

    Returns
    -------
    dict: "loss" in nats per target, "accuracy" in 0 to 1
    """
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
