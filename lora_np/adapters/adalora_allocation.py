"""AdaLoRA's rank allocation: which singular values each layer keeps, by their importance (Zhang et al. 2023).

Every layer starts with more directions than the model keeps on average. Each step updates the importance of every
number (section 3.2). A direction's importance is that of its singular value plus the mean importance of each of its two
vectors. The singular values of the least important directions of the whole model are set to zero until the budget is
met, so important layers keep many directions and others few. The budget falls from all directions to the target along a
cubic (equation 12). Directions at zero are still trained, and come back if their importance grows. In the last part of
training the choice is final.
"""

from dataclasses import dataclass

import numpy as np

from ..checked import check_fields, finite_number
from .adalora import NAMES, orthogonality
from .adapter import layer_arrays


@dataclass(frozen=True)
class RankAllocation:
    """The settings, as shares of the number of directions or of training steps.

    Parameters
    ----------
    target : float in (0, 1], the share of all singular values that is left at the end; the paper starts with 1.5
        times as many as it keeps
    first, last : floats in [0, 1), the shares of the steps before the budget begins to fall and after it has fallen
    every : float in (0, 1], the share of the steps between two choices
    beta1, beta2 : floats in [0, 1), the decay of the running means of importance and uncertainty (equations 9, 10)
    orthogonality : float ≥ 0, γ, the weight in the loss of the factors' distance from orthonormal. As in PEFT, the
        distance is the mean over layers; equation 5 of the paper has the sum. The norms are squared as in the paper;
        PEFT does not square them.

    Raises
    ------
    ValueError
        At construction, if a field is out of bounds or first + last is above 1.
    """

    target: float = 2.0 / 3.0
    first: float = 0.1
    last: float = 0.5
    every: float = 0.01
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.1

    def __post_init__(self):
        check_fields(self, finite_number, "target", "every", above=0, most=1)
        check_fields(self, finite_number, "first", "last", "beta1", "beta2", least=0, below=1)
        check_fields(self, finite_number, "orthogonality", least=0)
        if self.first + self.last > 1.0:
            raise ValueError(f"first, last: got {self.first} and {self.last}, expected at most 1 together")


def budget_at(step, steps, n_values, settings):
    """The number of singular values, of all layers together, that are left after a step (equation 12).

    Parameters
    ----------
    step : int, from 1
    steps : int, the steps of the whole training
    n_values : int, the number of singular values
    settings : RankAllocation

    Returns
    -------
    int, from n_values down to target · n_values
    """
    first, last = round(settings.first * steps), round(settings.last * steps)
    target = max(1, round(settings.target * n_values))
    if step <= first:
        return n_values
    if step >= steps - last:
        return target
    left = 1.0 - (step - first) / (steps - last - first)
    return round(target + (n_values - target) * left**3)


def direction_importance(scores):
    """The importance of each direction of a layer: its singular value's, plus its vectors' means (equation 7).

    Parameters
    ----------
    scores : dict with lora_A (r, in), lora_E (r,), lora_B (out, r), the importance of every number

    Returns
    -------
    array (r,)
    """
    return scores["lora_E"] + scores["lora_A"].mean(axis=1) + scores["lora_B"].mean(axis=0)


def keep_most_important(importance, budget):
    """Which directions of all layers are within the budget.

    Parameters
    ----------
    importance : dict, layer -> (r,)
    budget : int, at least 1

    Returns
    -------
    dict, layer -> bool array (r,); of equally important directions the first ones stay
    """
    every = np.concatenate(list(importance.values()))
    stays = np.zeros(len(every), dtype=bool)
    stays[np.argsort(-every, kind="stable")[:budget]] = True
    ends = np.cumsum([len(values) for values in importance.values()])
    return dict(zip(importance, np.split(stays, ends[:-1])))


def updated_scores(module, weights, grads, memory, settings):
    """The importance of every number of one layer after a step; updates the running means in `memory`.

    I = |w · g|                    how much the loss would change, to first order, if the number were zero (equation 8)
    Ī ← β₁ Ī + (1 − β₁) I          (equation 9)
    Ū ← β₂ Ū + (1 − β₂) |I − Ī|    its uncertainty (equation 10)
    s = Ī Ū                        (equation 11)

    Returns
    -------
    dict, "lora_A", "lora_E", "lora_B" -> s, of the array's shape
    """
    scores = {}
    for leaf in NAMES:
        name = f"{module}.{leaf}"
        now = np.abs(weights[name] * grads[name])
        mean = memory.setdefault(f"{name}.importance", np.zeros_like(now))
        doubt = memory.setdefault(f"{name}.uncertainty", np.zeros_like(now))
        mean[...] = settings.beta1 * mean + (1.0 - settings.beta1) * now
        doubt[...] = settings.beta2 * doubt + (1.0 - settings.beta2) * np.abs(now - mean)
        scores[leaf] = mean * doubt
    return scores


def settled_from(adapter, steps, settings=None):
    """The step from which the choice of directions is final; 0 for every kind except "adalora".

    Before that step the model has more directions than its final budget, so evaluations do not count; see
    `TrainConfig.select_from`.
    """
    if adapter is None or adapter.config.kind != "adalora":
        return 0
    settings = RankAllocation() if settings is None else settings
    return steps - round(settings.last * steps)


def allocating(objective, adapter, steps, settings=None):
    """The objective, and the hook for `adjust`, with which `train` trains an adapter of any kind.

    Parameters
    ----------
    objective : from `model_objective`
    adapter : Adapter before training, or None
    steps : int, the steps of the whole training
    settings : RankAllocation; None: its defaults

    Returns
    -------
    objective : for kind "adalora" the given one plus γ R, R the factors' mean distance from orthonormal; else the given
        one
    adjust : for kind "adalora" a function (step, trainable, grads, memory) that sets singular values to zero; else None

    Raises
    ------
    ValueError
        If one of AdaLoRA's three arrays is frozen, because its importance is computed from its gradient.
    """
    modules = [] if adapter is None or adapter.config.kind != "adalora" else list(layer_arrays(adapter))
    if not modules:
        return objective, None
    for leaf in NAMES:
        if adapter.config.rate_factors.get(leaf) == 0.0:
            raise ValueError(f"rate_factors: got 0 for {leaf!r}, but the allocation of ranks needs its gradient")
    settings = RankAllocation() if settings is None else settings
    n_values = sum(adapter.weights[f"{module}.lora_E"].size for module in modules)

    def with_orthogonality(trainable, batch, rng):
        result = objective(trainable, batch, rng)
        share, loss, grads = settings.orthogonality / len(modules), result.loss, dict(result.grads)
        for module in modules:
            distance, of_factors = orthogonality({n: trainable[f"{module}.{n}"] for n in ("lora_A", "lora_B")})
            loss += share * distance
            for leaf, grad in of_factors.items():
                grads[f"{module}.{leaf}"] = grads[f"{module}.{leaf}"] + share * grad
        return result._replace(loss=loss, grads=grads)

    def adjust(step, trainable, grads, memory):
        scores = {module: updated_scores(module, trainable, grads, memory, settings) for module in modules}
        final = step >= settled_from(adapter, steps, settings)
        if final and f"{modules[0]}.kept" in memory:
            stays = {module: memory[f"{module}.kept"] for module in modules}
        elif final or step % max(1, round(settings.every * steps)) == 0:
            importance = {module: direction_importance(scores[module]) for module in modules}
            stays = keep_most_important(importance, budget_at(step, steps, n_values, settings))
        else:
            return
        for module in modules:
            trainable[f"{module}.lora_E"][~stays[module]] = 0.0
            if final:
                memory[f"{module}.kept"] = stays[module]

    return with_orthogonality, adjust
