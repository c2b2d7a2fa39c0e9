"""Loss and accuracy over a set of batches."""

import numpy as np

from ..model import predict_logits
from ..ops import IGNORE_INDEX, cross_entropy_forward


def evaluate(params, batches, config, adapter=None):
    """Mean loss and accuracy over all real targets of all batches.

    Parameters
    ----------
    params : dict of the base weights
    batches : iterable of Batch
    config : ModelConfig
    adapter : Adapter or None

    Returns
    -------
    dict: "loss" in nats per target, "accuracy" in 0 to 1
    """
    total = loss_sum = correct = 0
    for logits, targets in predict_logits(params, batches, config, adapter):
        real = targets != IGNORE_INDEX
        n = int(real.sum())
        loss_sum += n * float(cross_entropy_forward(logits, targets, wanted=())[0])
        correct += int(np.sum((logits.argmax(axis=-1) == targets) & real))
        total += n
    if not total:
        raise ValueError("batches: got none, expected at least one to evaluate on")
    return {"loss": loss_sum / total, "accuracy": correct / total}
