"""Loss and accuracy over a set of batches."""

import math

import numpy as np

from ..data import language_batches
from ..model import loss_and_gradients, predict_logits
from ..ops import IGNORE_INDEX, cross_entropy_forward, target_weights
from .threads import shard_threads

# Batch sizes for computations without gradients; they are small, so that the arrays stay in the processor's cache.
CLASSIFIER_BATCH, LANGUAGE_BATCH = 32, 16


def evaluate(params, batches, config, adapter=None, class_weights=None, threads=1):
    """Compute the mean loss over all non-ignored targets and, for a classifier, the accuracy.

    Parameters
    ----------
    params : dict of the base weights
    batches : iterable of Batch
    config : the model's configuration
    adapter : Adapter or None
    class_weights : array (n_classes,) or None, used only in the loss; see `cross_entropy_forward`
    threads : int, number of batches processed in parallel; affects the running time, not the results

    Returns
    -------
    dict: "loss" (in nats per target) and, for a classifier, "accuracy" (between 0 and 1)

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    """
    loss_sum = weight_sum = n_right = n_targets = 0
    with shard_threads(threads) as run:
        if config.n_classes:
            for logits, targets in predict_logits(params, batches, config, adapter, run):
                loss, _ = cross_entropy_forward(logits, targets, wanted=(), weights=class_weights)
                weight = target_weights(targets, class_weights).sum().item()
                loss_sum += weight * float(loss)
                weight_sum += weight
                n_right += int(np.sum(logits.argmax(axis=-1) == targets))  # a prediction is never IGNORE_INDEX
                n_targets += int(np.sum(targets != IGNORE_INDEX))
        else:
            for result in run(lambda batch: loss_and_gradients(params, batch, config, adapter), batches):
                loss_sum += result.n_targets * result.loss
                weight_sum += result.n_targets
    if not weight_sum:
        raise ValueError("batches: got none, expected at least one to evaluate on")
    if not math.isfinite(loss_sum):
        raise FloatingPointError("the logits became NaN or infinite; the weights are corrupted or far too large")
    loss = {"loss": loss_sum / weight_sum}
    return {**loss, "accuracy": n_right / n_targets} if config.n_classes else loss


def language_loss(params, config, tokens, adapter=None, length=None, threads=1):
    """Return the mean loss on a token stream in nats per token; its exponential is the perplexity.

    The stream is read in windows of `length` tokens, or of n_positions tokens if `length` is None.
    """
    batches = language_batches(tokens, LANGUAGE_BATCH, length or config.n_positions)
    return evaluate(params, batches, config, adapter, threads=threads)["loss"]
