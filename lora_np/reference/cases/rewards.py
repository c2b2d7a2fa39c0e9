"""Tier 6: the log probabilities of tokens, and the losses of GRPO and DPO."""

import numpy as np

from ... import training
from .case import ReferenceCase
from .draws import as_float32, bell, bits_of
from .operations import drawn, operation_case

# ---------------------------------------------------------------- what the package computes


def grpo(settings, t):
    N, T = t["log_probs"].shape
    real = np.arange(T) < t["lengths"][:, None]
    advantages = training.advantages(t["rewards"])
    others, clip, beta = (t["old"], t["reference"]), settings["clip"], settings["beta"]
    loss, slopes = training.grpo(t["log_probs"], advantages.reshape(N), real, *others, clip=clip, beta=beta)
    return losses(settings, t, loss, slopes, advantages=advantages)


def dpo(settings, t):
    return losses(settings, t, *training.dpo(t["log_probs"], t["reference"], settings["beta"]))


def losses(settings, t, loss, slopes, **outputs):
    dtype = t["log_probs"].dtype
    return {**outputs, "loss": np.asarray(loss, dtype), "grad.log_probs": dtype.type(settings["grad_loss"]) * slopes}


# ---------------------------------------------------------------- the cases


def grpo_case(id, rewards, lengths, *about, spread=0.4, grad_loss=1.0, **settings):
    """A case with a completion for each reward; `spread` is the size of the differences to the older policies."""
    bits, rewards = bits_of(id), np.array(rewards)
    arrays = drawn(bits, dict.fromkeys(("log_probs", "old", "reference"), (rewards.size, 4)))
    inputs = {"log_probs": as_float32(arrays["log_probs"] * 0.5 - 2.0)}
    inputs |= {name: as_float32(inputs["log_probs"] + spread * arrays[name]) for name in ("old", "reference")}
    inputs |= {"rewards": rewards, "lengths": np.array(lengths)}
    settings = {"clip": 0.2, "beta": 0.0, "grad_loss": grad_loss, **settings}
    return ReferenceCase(id, 6, "grpo", settings, inputs, grpo, *about)


def reward_cases():
    """The cases of tier 6."""
    tokens = {"x": (2, 3, 5), "weight": (7, 5), "targets": [[4, -100, 0], [6, 2, -100]], "grad.log_probs": (2, 3)}
    bits = bits_of("preferences")
    pairs = {name: as_float32(3.0 * bell(bits, (4, 2)) - 20.0) for name in ("log_probs", "reference")}
    return [
        operation_case("token_log_probs", "token-log-probs", {"ignore_index": -100}, tokens,
                       "log p of each target; gradients of either sign", "a mean; p − onehot; ignored rows with a "
                       "gradient", tier=6, bits=bits_of("token log probabilities")),
        grpo_case("grpo", [[1.0, 0.0, 0.25], [-2.0, 0.5, 0.5]], [4, 2, 3, 1, 4, 4], "two groups of three, some ratios "
                  "clipped, with a penalty", "a standard deviation that divides by G; clipping on both sides; the mean "
                  "over all tokens; the gradient of log π − log π_ref",
                  beta=0.25, grad_loss=0.5),
        grpo_case("grpo-equal-rewards", [[0.5, 0.5], [1.0, 0.0], [0.25, -1.0]], [2, 4, 3, 4, 1, 2], "three groups, one "
                  "with equal rewards; no penalty", "0/0 in a group without differences"),
        ReferenceCase("dpo", 6, "dpo", {"beta": 0.25, "grad_loss": 0.5}, pairs, dpo, "four pairs",
                      "the rejected text first; log σ without its sign; the reference left out"),
        ReferenceCase("dpo-far", 6, "dpo", {"beta": 1.0, "grad_loss": 1.0},
                      {"log_probs": np.array([[-1.0, -2000.0], [-2000.0, -1.0]]), "reference": np.zeros((2, 2))}, dpo,
                      "margins of 1999 and −1999", "exp overflows", ("edge",)),
    ]  # fmt: skip
