"""DPO, Direct Preference Optimisation: learn from pairs of a preferred and a rejected text (Rafailov et al. 2023).

The policy that maximises the expected reward minus β times the divergence from a reference is known in closed form:
π*(y) ∝ π_ref(y) exp(R(y) / β). Solved for the reward, R(y) = β log(π*(y) / π_ref(y)) + a constant of the prompt. So
every policy is the optimal one for some reward. If people prefer y_w to y_l with the probability σ(R(y_w) − R(y_l))
(Bradley and Terry 1952), the constant cancels, and the policy can be fitted to their choices by maximum likelihood,
without a reward model and without sampling.
"""

from typing import NamedTuple

import numpy as np

from ..model import Objective, token_log_probs
from .fine_tune import attach


class PairBatch(NamedTuple):
    """A batch of P pairs; the preferred text of each is the first."""

    ids: np.ndarray  # (P, 2, T)
    targets: np.ndarray  # (P, 2, T), the next token of the completion, or IGNORE_INDEX
    lengths: np.ndarray  # (P, 2)
    reference: np.ndarray  # (P, 2), log π_ref of the texts
    rows: np.ndarray  # (P,), each pair's index in the input


def dpo(log_probs, reference, beta):
    """The loss of DPO and its gradient with respect to the log probabilities of the texts.

    With the margin m = β [(log π(y_w) − log π_ref(y_w)) − (log π(y_l) − log π_ref(y_l))],

        loss = −mean log σ(m),     d(−log σ(m))/dm = −σ(−m)

    The gradient is therefore −β σ(−m) / P for a preferred text, and the opposite for the rejected one: pairs that the
    policy already orders correctly hardly count. Only the difference matters, so both texts may become less probable.

    Parameters
    ----------
    log_probs, reference : array (P, 2), log π and log π_ref of the preferred and of the rejected text
    beta : float, above 0

    Returns
    -------
    loss : float
    dlog_probs : array (P, 2)
    """
    margin = beta * (log_probs - reference) @ np.array([1.0, -1.0], log_probs.dtype)  # (P,)
    loss = np.logaddexp(0, -margin).mean()  # −log σ(m), without overflow
    slope = -beta * np.exp(-np.logaddexp(0, margin)) / len(margin)  # (P,), because σ(−m) = exp(log σ(−m))
    return float(loss), np.stack([slope, -slope], axis=1)


def pair_log_probs(params, batch, config, *given):
    """The log probabilities of a PairBatch's texts, (P, 2), and a function that backpropagates their gradient.

    The remaining arguments are those of `token_log_probs`.
    """
    ids, targets = (array.reshape(-1, array.shape[-1]) for array in (batch.ids, batch.targets))  # (2 P, T)
    log_probs, back = token_log_probs(params, ids, targets, config, *given)

    def back_from_texts(dlog_probs):
        return back(np.broadcast_to(dlog_probs.reshape(-1, 1), log_probs.shape))

    return log_probs.sum(axis=1).reshape(-1, 2), back_from_texts


def dpo_objective(params, config, adapter, *, beta, recompute=False):
    """Return the objective for `train` with batches of PairBatch.

    Parameters
    ----------
    params, config : the model to start from
    adapter : initial Adapter, or None to train all weights
    beta : float, the strength of the penalty for leaving the reference
    recompute : bool, see `lora_np.model.forward`

    Returns
    -------
    function (trainable, batch, rng) -> Objective
    """

    def objective(trainable, batch, rng):
        model, attached = attach(params, adapter, trainable)
        log_probs, back = pair_log_probs(model, batch, config, attached, tuple(trainable), recompute)
        loss, dlog_probs = dpo(log_probs, batch.reference, beta)
        return Objective(loss, len(batch.ids), back(dlog_probs))

    return objective
