"""The loss of a batch and its gradients: forward pass, cross-entropy and backward pass in one call.

A language model's head and cross-entropy are fused, so that the logits of all positions need not be in memory at once.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from .. import ops
from .architectures import check_writes, modules
from .passes import backward, forward


class Objective(NamedTuple):
    loss: float  # mean over the targets that are not ignored, in nats
    n_targets: float  # number of these targets, or the sum of their weights: this loss's weight in a mean over batches
    grads: dict[str, np.ndarray]  # of the wanted parameters


def loss_and_gradients(
    params, batch, config, adapter=None, wanted=(), masks=None, class_weights=None, recompute=False, release=None
):
    """The loss of one batch and the gradients of the wanted parameters.

    Parameters
    ----------
    params : dict of the base weights
    batch : an object with the fields ids (B, T), targets ((B, T) or (B,)) and lengths (B,)
    config : the model's configuration
    adapter : Adapter or None
    wanted : names of the parameters whose gradients to compute
    masks : dict from `draw_masks`, or None
    class_weights : array (n_classes,) for a classifier, see `cross_entropy_forward`; or None
    recompute : bool, see `forward`
    release : function (grads, n_targets, incomplete) that removes complete gradients from `grads`, called after each
        block of the backward pass, so that they need not all be in memory; `n_targets` is as in Objective, and
        `incomplete` has the names of gradients that are still to be added to. None: all gradients are returned

    Returns
    -------
    Objective
    """
    given = {"lengths": batch.lengths, "adapter": adapter, "wanted": wanted, "masks": masks, "recompute": recompute}
    n_targets = ops.target_weights(batch.targets, class_weights).sum().item()
    release = release and partial(release, n_targets=n_targets)
    if not config.n_classes:
        check_writes(config)
        h, cache = forward(params, batch.ids, config, **given, head=False)  # (B, T, C)
        table, needs = f"{modules(config)['head'].parameters}.weight", cache.call.wanted["head"]
        loss, loss_cache = ops.linear_cross_entropy_forward(h, cache.call.params[table], batch.targets, wanted=needs)
        dh, dtable = ops.linear_cross_entropy_backward(1.0, loss_cache)
        known = {} if dtable is None else {table: dtable}
        grads = backward(dh, cache, head=False, grads=known, release=release) if wanted else {}
        return Objective(float(loss), n_targets, grads)
    logits, cache = forward(params, batch.ids, config, **given)
    loss, loss_cache = ops.cross_entropy_forward(
        logits, batch.targets, wanted=("logits",) if wanted else (), weights=class_weights
    )
    dlogits = ops.cross_entropy_backward(1.0, loss_cache).dlogits if wanted else None
    grads = backward(dlogits, cache, release=release) if wanted else {}
    return Objective(float(loss), n_targets, grads)


def token_log_probs(params, ids, targets, config, adapter=None, wanted=(), recompute=False):
    """The log probabilities of given tokens, and a function that backpropagates their gradient to the parameters.

    Parameters
    ----------
    params, config, adapter : the language model
    ids : int array (B, T), padded on the right
    targets : int array (B, T), the next token or IGNORE_INDEX
    wanted : names of the parameters whose gradients `back` computes
    recompute : bool, see `forward`

    Returns
    -------
    log_probs : array (B, T), log p of each target, given the tokens before it; 0 where the target is ignored
    back : function, dlog_probs (B, T) -> dict of the wanted parameters' gradients
    """
    check_writes(config)
    given = {"adapter": adapter, "wanted": wanted, "recompute": recompute}
    h, cache = forward(params, ids, config, **given, head=False)  # (B, T, C)
    table, needs = f"{modules(config)['head'].parameters}.weight", cache.call.wanted["head"]
    log_probs, of_head = ops.token_log_probs_forward(h, cache.call.params[table], targets, wanted=needs)

    def back(dlog_probs):
        dh, dtable = ops.token_log_probs_backward(dlog_probs, of_head)
        return backward(dh, cache, head=False, grads={} if dtable is None else {table: dtable})

    return log_probs, back


def predict_logits(params, batches, config, adapter=None, run=map, head=None):
    """Compute the logits of every batch, without dropout and without caches for gradients.

    Parameters
    ----------
    params, config, adapter : the model
    batches : iterable of Batch
    run : `map`, or a thread pool's `map` to process several batches at a time
    head : array (K, C) to use as a language model's head at each row's last token, or None for the model's own head

    Returns
    -------
    iterator of (logits, targets), one pair for each batch

    Raises
    ------
    FloatingPointError
        If logits are not finite.
    """

    def answered(batch):
        logits, _ = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter, head=head is None)
        if head is not None:
            logits, _ = ops.linear_forward(logits[np.arange(len(logits)), batch.lengths - 1], head, wanted=())  # (B, K)
        if not np.isfinite(logits).all():
            raise FloatingPointError("the logits became NaN or infinite; the weights are corrupted or far too large")
        return logits, batch.targets

    return run(answered, batches)
