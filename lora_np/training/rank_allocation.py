"""AdaLoRA's rank allocation: which singular values each layer keeps, by their importance (Zhang et al. 2023).

Every layer starts with more directions than the model is to keep on average. After each step every number's
importance is updated (section 3.2), a direction's is that of its singular value and the means of its two vectors',
and the singular values of those beyond the budget are set to zero, wherever they are: a layer that matters keeps
many, another few. The budget falls from all to the target along a cubic (equation 12). What was set to zero goes on
being trained, and comes back when its importance has grown; in the last part of the training the choice is final.
"""

from dataclasses import dataclass

import numpy as np

from ..adapters import adapter_parts
from ..adapters.adalora import NAMES, orthogonality
from ..model.objective import Objective


@dataclass(frozen=True)
class RankAllocation:
    """The settings, as shares of what is there or of the steps of a training.

    Parameters
    ----------
    target : float in (0, 1], the share of all singular values that is kept in the end; the paper starts with 1.5
        times what it keeps
    first, last : floats, the shares of the steps before the budget begins to fall, and after it has fallen
    every : float, the share of the steps between two choices
    beta1, beta2 : floats in [0, 1), how much of an importance and of its uncertainty a step keeps (equations 9, 10)
    orthogonality : float, γ, the weight of the factors' distance from orthonormal in the loss. As in PEFT it is of the
        mean over layers; equation 5 of the paper has the sum. The norms are squared, as in the paper and not in PEFT.
    """

    target: float = 2.0 / 3.0
    first: float = 0.1
    last: float = 0.5
    every: float = 0.01
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.1

    def __post_init__(self):
        for name in ("target", "every"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected 0 < {name} ≤ 1")
        for name in ("first", "last"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected 0 ≤ {name} < 1")
        if self.first + self.last > 1.0:
            raise ValueError(f"first, last: got {self.first} and {self.last}, expected at most 1 together")
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected 0 ≤ {name} < 1")
        if not self.orthogonality >= 0.0:
            raise ValueError(f"orthogonality: got {self.orthogonality!r}, expected at least 0")


def budget_at(step, steps, n_values, settings):
    """How many singular values of all layers together are kept after a step (equation 12).

    Parameters
    ----------
    step : int, from 1
    steps : int, of the whole training
    n_values : int, how many there are
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
    """The importance of each of a layer's directions: its singular value's, and the means of its vectors' (equation 7).

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
    dict, layer -> bool array (r,); of equal ones the earlier are kept
    """
    every = np.concatenate(list(importance.values()))
    kept = np.zeros(len(every), dtype=bool)
    kept[np.argsort(-every, kind="stable")[:budget]] = True
    ends = np.cumsum([len(values) for values in importance.values()])
    return dict(zip(importance, np.split(kept, ends[:-1])))


def settled_from(adapter, steps, settings=None):
    """The first step after which an adapter's directions are chosen for good; 0 for any kind but "adalora".

    Before it the model has more directions than its budget, and is not yet what is to be kept; see
    `TrainConfig.select_from`.
    """
    if adapter is None or adapter.config.kind != "adalora":
        return 0
    settings = RankAllocation() if settings is None else settings
    return steps - round(settings.last * steps)


def allocating(objective, adapter, steps, settings=None):
    """An objective and a hook that train an adapter as its kind asks for; see `train`.

    Parameters
    ----------
    objective : from `model_objective`
    adapter : Adapter at its start, or None
    steps : int, of the training
    settings : RankAllocation; None: its defaults

    Returns
    -------
    objective : with the term γ R of the factors' distance from orthonormal (averaged over layers) for kind
        "adalora"; for any other kind the one given
    adjust : function (step, trainable, grads, memory) for kind "adalora", which sets singular values to zero; else None

    Raises
    ------
    ValueError
        If one of the three arrays is frozen: its importance is told from its gradient.
    """
    modules = [] if adapter is None or adapter.config.kind != "adalora" else list(adapter_parts(adapter))
    if not modules:
        return objective, None
    for leaf in NAMES:
        if adapter.config.rate_factors.get(leaf) == 0.0:
            raise ValueError(f"rate_factors: got 0 for {leaf!r}, but the allocation of ranks needs its gradient")
    settings = RankAllocation() if settings is None else settings
    n_values = sum(adapter.weights[f"{module}.lora_E"].size for module in modules)

    def with_orthogonality(trainable, batch, rng):
        found = objective(trainable, batch, rng)
        share, loss, grads = settings.orthogonality / len(modules), found.loss, dict(found.grads)
        for module in modules:
            distance, of_factors = orthogonality({n: trainable[f"{module}.{n}"] for n in ("lora_A", "lora_B")})
            loss += share * distance
            for leaf, grad in of_factors.items():
                grads[f"{module}.{leaf}"] = grads[f"{module}.{leaf}"] + share * grad
        return Objective(loss, found.n_targets, grads)

    def adjust(step, trainable, grads, memory):
        """Update the importance of every number, and at a time of choice set singular values to zero.

        I = |w · g|                    the loss's change if the number were zero, to first order (equation 8)
        Ī ← β₁ Ī + (1 − β₁) I          (equation 9)
        Ū ← β₂ Ū + (1 − β₂) |I − Ī|    how uncertain that is (equation 10)
        s = Ī Ū                        (equation 11)
        """
        importance = {}
        for module in modules:
            scores = {}
            for leaf in NAMES:
                name = f"{module}.{leaf}"
                now = np.abs(trainable[name] * grads[name])
                mean = memory.setdefault(f"{name}.importance", np.zeros_like(now))
                doubt = memory.setdefault(f"{name}.uncertainty", np.zeros_like(now))
                mean[...] = settings.beta1 * mean + (1.0 - settings.beta1) * now
                doubt[...] = settings.beta2 * doubt + (1.0 - settings.beta2) * np.abs(now - mean)
                scores[leaf] = mean * doubt
            importance[module] = direction_importance(scores)
        final = step >= settled_from(adapter, steps, settings)
        if final and f"{modules[0]}.kept" in memory:
            kept = {module: memory[f"{module}.kept"] for module in modules}
        elif final or step % max(1, round(settings.every * steps)) == 0:
            kept = keep_most_important(importance, budget_at(step, steps, n_values, settings))
        else:
            return
        for module in modules:
            trainable[f"{module}.lora_E"][~kept[module]] = 0.0
            if final:
                memory[f"{module}.kept"] = kept[module]

    return with_orthogonality, adjust
