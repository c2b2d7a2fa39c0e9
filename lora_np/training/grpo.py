"""GRPO, Group Relative Policy Optimisation: make texts with a high reward more probable (Shao et al. 2024, sec. 4.1).

The language model is a policy π: it draws a completion y of a prompt token by token. The expected reward
J = Σ_y π(y) R(y) is not a function of any single text, but its gradient can be estimated from samples, because
∇π = π ∇log π:

    ∇J = Σ_y π(y) R(y) ∇log π(y) = E[R(y) ∇log π(y)]

Subtracting a number b that does not depend on y leaves this expectation unchanged, because E[∇log π(y)] = ∇Σ_y π(y) =
∇1 = 0. It does reduce the variance: with b = 0 and positive rewards, every sample would be made more probable. GRPO
draws a group of G completions for each prompt, takes their mean reward as b, and divides by their standard deviation,
so that the scale of the rewards does not matter. These are the `advantages`. (The mean includes y itself, which only
multiplies the expectation by (G − 1) / G. Dividing by the standard deviation, and by the number of tokens in `grpo`,
does change the gradient's direction a little.)

Several steps may use the same samples, which were then drawn by an older policy. Each token's term is therefore
weighted by the ratio π(token) / π_old(token), and has no gradient once the ratio has left [1 − ε, 1 + ε] in the
direction of the advantage (Schulman et al. 2017, PPO). `grpo_objective` draws new samples in each step, so there the
ratio is 1.

The penalty β · KL(π ‖ reference) keeps the policy close to the reference, which is the model before training. With
LoRA, the reference is the same model without its adapter.
"""

import numpy as np

from ..data import IGNORE_INDEX, Batch, pad_sequences
from ..model import Objective, sample, token_log_probs
from .fine_tune import attach

SMALLEST_SPREAD = 1e-4  # added to the standard deviation of a group's rewards, as in TRL


def token_rows(prompts, completions):
    """Return the ids of prompts with completions, and their targets: the completion's next token, or IGNORE_INDEX.

    Both arguments are lists of N arrays of token ids, none of them empty; both results are arrays (N, T).
    """
    ids = [np.concatenate(pair)[:-1] for pair in zip(prompts, completions)]
    hidden = [np.full(len(prompt) - 1, IGNORE_INDEX) for prompt in prompts]
    targets = [np.concatenate(pair) for pair in zip(hidden, completions)]
    return pad_sequences(ids, 0)[0], pad_sequences(targets, IGNORE_INDEX)[0]


def prompt_batches(prompts, steps, batch_size, rng, pad=0):
    """Return a Batch of prompts for each step, in random order; all prompts are used equally often.

    `prompts` is a list of arrays of token ids. The targets do not matter: they are the completions.
    """
    n, batches = steps * batch_size, []
    order = np.concatenate([rng.permutation(len(prompts)) for _ in range(-(-n // len(prompts)))])[:n]
    for rows in order.reshape(steps, batch_size):
        ids, lengths = pad_sequences([prompts[i] for i in rows], pad)
        batches.append(Batch(ids, np.zeros(len(ids), dtype=np.int64), lengths, rows))
    return batches


def complete(policy, reference, config, prompts, rng, n_new, stop=()):
    """Draw completions of prompts, and measure them.

    Parameters
    ----------
    policy : pair (params, adapter or None); reference : dict of the weights before training
    config, prompts, rng, n_new, stop : see `sample`

    Returns
    -------
    completions : list of arrays of token ids
    numbers : dict: "divergence", the mean of log π(token) − log π_ref(token) in nats, an estimate of KL(π ‖ π_ref) per
        token, because the tokens are drawn from π; "distinct", the fraction of different bigrams
    """
    params, adapter = policy
    completions = sample(params, prompts, config, n_new, rng, adapter, stop)
    rows = token_rows(prompts, completions)
    ours, its = (token_log_probs(of, *rows, config, a)[0] for of, a in (policy, (reference, None)))
    divergence = float((ours - its).sum(dtype=np.float64) / sum(map(len, completions)))
    bigrams = [pair for ids in completions for pair in zip(ids.tolist(), ids[1:].tolist())]
    return completions, {"divergence": divergence, "distinct": len({*bigrams}) / max(1, len(bigrams))}


def advantages(rewards):
    """Return how much better each completion is than its group's mean, in standard deviations.

    Parameters
    ----------
    rewards : array (P, G), of G completions of each of P prompts, with G at least 2

    Returns
    -------
    array (P, G); zeros for a group whose rewards are all equal, which therefore has no gradient
    """
    difference = rewards - rewards.mean(axis=1, keepdims=True)
    return difference / (rewards.std(axis=1, ddof=1, keepdims=True) + SMALLEST_SPREAD)


def grpo(log_probs, advantage, real, old=None, reference=None, clip=0.2, beta=0.0):
    """The loss of GRPO and its gradient with respect to the log probabilities.

    With the ratio ρ = π / π_old and the difference d = log π_ref − log π, both per token,

        loss = −mean over completions of the mean over tokens of  min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) − β (e^d − d − 1)

    The last bracket is an estimate of the divergence: its expectation under π is KL(π ‖ π_ref), and it is never
    negative (Schulman 2020, "k3"). The expectation of its gradient is that of KL(π_ref ‖ π), which is nearly the same
    close to the reference. Because ∂ρ/∂log π = ρ and ∂d/∂log π = −1, a token's gradient, apart from the
    means, is

        −(ρ A if not clipped, else 0) + β (1 − e^d)

    Parameters
    ----------
    log_probs : array (N, T), log π of each token
    advantage : array (N,), A
    real : bool array (N, T), which tokens belong to a completion; each row has at least one
    old : array (N, T), log π_old; None: the policy itself
    reference : array (N, T), log π_ref; needed unless beta is 0
    clip, beta : float, ε and β

    Returns
    -------
    loss : float
    dlog_probs : array (N, T)
    """
    ratio = np.exp(log_probs - (log_probs if old is None else old))
    A = advantage[:, None]
    clipped = np.where(A > 0, ratio > 1 + clip, ratio < 1 - clip)
    gain = np.where(clipped, np.clip(ratio, 1 - clip, 1 + clip), ratio) * A
    slope = np.where(clipped, 0.0, ratio * A)
    if beta:
        difference = reference - log_probs
        gain = gain - beta * (np.exp(difference) - difference - 1)
        slope = slope - beta * (1 - np.exp(difference))
    weight = real / (len(real) * real.sum(axis=1, keepdims=True))  # (N, T), of each token in the mean
    return -float((weight * gain).sum()), (-weight * slope).astype(log_probs.dtype)


def grpo_objective(params, config, adapter, score, *, group, n_new, stop=(), beta=0.0, recompute=False, reference=None):
    """Return the objective for `train`: it draws completions of a batch's prompts, and increases their expected reward.

    Its loss is the negative mean reward, because GRPO's own loss is about 0 at every step.

    Parameters
    ----------
    params, config : the model to start from
    adapter : initial Adapter, or None to train all weights
    score : function (prompts, completions) -> array of N rewards; both are lists of N arrays of token ids
    group : int, the number of completions per prompt, at least 2
    n_new : int, the maximum number of tokens in a completion
    stop : ids of tokens that end a completion
    beta : float, the weight of the penalty
    recompute : bool, see `lora_np.model.forward`
    reference : dict of weights, the reference of the penalty; None: params

    Returns
    -------
    function (trainable, batch, rng) -> Objective; rng draws the completions
    """

    def objective(trainable, batch, rng):
        model, attached = attach(params, adapter, trainable)
        prompts = [ids[:length] for ids, length in zip(batch.ids, batch.lengths) for _ in range(group)]
        completions = sample(model, prompts, config, n_new, rng, attached, stop)
        rewards = np.asarray(score(prompts, completions), dtype=np.float64)
        ids, targets = token_rows(prompts, completions)
        log_probs, back = token_log_probs(model, ids, targets, config, attached, tuple(trainable), recompute)
        of_reference = token_log_probs(reference or params, ids, targets, config)[0] if beta else None
        advantage = advantages(rewards.reshape(-1, group)).ravel()
        _, dlog_probs = grpo(log_probs, advantage, targets != IGNORE_INDEX, None, of_reference, beta=beta)
        return Objective(-float(rewards.mean()), len(rewards), back(dlog_probs))

    return objective
