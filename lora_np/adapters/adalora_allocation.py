"""AdaLoRA's rank allocation: each layer keeps its most important singular values (Zhang et al. 2023).

Every layer starts with more directions than the average layer keeps at the end. Each step updates the importance of
every parameter (section 3.2). A direction's importance is the importance of its singular value, plus the mean
importance of the entries of each of its two singular vectors. The singular values of the model's least important
directions are set to zero until the budget is met, so important layers keep more directions than unimportant ones. The
budget decreases from its initial value to the target along a cubic curve (equation 12). Directions removed in this way
are still trained, and return if their importance grows. In the final phase of training, the allocation is fixed.
"""

from dataclasses import dataclass

import numpy as np

from ..checked import check_fields, finite_number
from .adalora import NAMES, orthogonality
from .adapter import layer_arrays


@dataclass(frozen=True)
class RankAllocation:
    """The settings of rank allocation.

    Parameters
    ----------
    target : float in (0, 1], the share of all singular values that remains at the end; the paper starts with 1.5
        times as many as it keeps
    first, last : floats in [0, 1), the share of steps before the budget starts to decrease, and the share of steps at
        the end with the final budget
    every : float in (0, 1], the interval between two allocations, as a share of the steps
    beta1, beta2 : floats in [0, 1), the decay of the running means of importance and uncertainty (equations 9, 10)
    orthogonality : float ≥ 0, γ, the weight of the orthogonality penalty in the loss. As in PEFT, the penalty is
        averaged over the layers (the paper's equation 5 sums it). As in the paper, and unlike in PEFT, the norms are
        squared.

    Raises
    ------
    ValueError
        If a field is out of range, or first + last is above 1.
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
            raise ValueError(f"first, last: got {self.first} and {self.last}, expected a sum of at most 1")


DEFAULTS = RankAllocation()


def budget_at(step, steps, n_values, settings):
    """The total number of singular values, over all layers, that remain after a step (equation 12).

    Parameters
    ----------
    step : int, from 1
    steps : int, the number of training steps
    n_values : int, the number of singular values at the start
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
    remaining = 1.0 - (step - first) / (steps - last - first)
    return round(target + (n_values - target) * remaining**3)


def keep_most_important(importance, budget):
    """Select the most important directions across all layers.

    Parameters
    ----------
    importance : dict, layer -> (r,)
    budget : int, the number of directions, at least 1

    Returns
    -------
    dict, layer -> bool array (r,), True for the selected directions; of equally important ones, the first are selected
    """
    values = np.concatenate(list(importance.values()))
    selected = np.zeros(len(values), dtype=bool)
    selected[np.argsort(-values, kind="stable")[:budget]] = True
    ends = np.cumsum([len(values) for values in importance.values()])
    return dict(zip(importance, np.split(selected, ends[:-1])))


def direction_importance(module, weights, grads, memory, settings):
    """Update the running means in `memory`, and return the importance of each direction of a layer, (r,).

        I = |w · g|                    the first-order change in the loss if a parameter w is set to zero (equation 8)
        Ī ← β₁ Ī + (1 − β₁) I          (equation 9)
        Ū ← β₂ Ū + (1 − β₂) |I − Ī|    the uncertainty of I (equation 10)
        s = Ī Ū                        the score of w (equation 11)

    A direction's importance is the score s of its singular value, plus the mean score of the entries of each of its two
    singular vectors (equation 7).
    """
    scores = {}
    for leaf in NAMES:
        name = f"{module}.{leaf}"
        current = np.abs(weights[name] * grads[name])
        mean = memory.setdefault(f"{name}.importance", np.zeros_like(current))
        uncertainty = memory.setdefault(f"{name}.uncertainty", np.zeros_like(current))
        mean[...] = settings.beta1 * mean + (1.0 - settings.beta1) * current
        uncertainty[...] = settings.beta2 * uncertainty + (1.0 - settings.beta2) * np.abs(current - mean)
        scores[leaf] = mean * uncertainty
    return scores["lora_E"] + scores["lora_A"].mean(axis=1) + scores["lora_B"].mean(axis=0)


def settled_from(adapter, steps, settings=DEFAULTS):
    """The step from which the allocation is fixed; 0 for every kind except "adalora".

    Before this step, the model has more directions than the final budget allows, so no checkpoint is selected; see
    `TrainConfig.select_from`.
    """
    if adapter is None or adapter.config.kind != "adalora":
        return 0
    return steps - round(settings.last * steps)


def allocating(objective, adapter, steps, settings=DEFAULTS):
    """Return the objective and the hook `after_update` that `train` needs for an adapter of any kind.

    Parameters
    ----------
    objective : from `model_objective`
    adapter : Adapter before training, or None
    steps : int, the number of training steps
    settings : RankAllocation

    Returns
    -------
    objective : the given objective; for kind "adalora", with γ R added, where R is the mean of `orthogonality` over the
        layers
    after_update : for kind "adalora", a function (step, trainable, grads, memory) that zeroes singular values; else
        None

    Raises
    ------
    ValueError
        If one of AdaLoRA's three arrays is frozen, because an array's importance depends on its gradient.
    """
    modules = [] if adapter is None or adapter.config.kind != "adalora" else list(layer_arrays(adapter))
    if not modules:
        return objective, None
    for leaf in NAMES:
        if adapter.config.rate_factors.get(leaf) == 0.0:
            raise ValueError(f"rate_factors: got 0 for {leaf!r}, but rank allocation needs this array's gradient")
    n_values = sum(adapter.weights[f"{module}.lora_E"].size for module in modules)

    def penalised(trainable, batch, rng):
        result = objective(trainable, batch, rng)
        share, loss, grads = settings.orthogonality / len(modules), result.loss, dict(result.grads)
        for module in modules:
            penalty, penalty_grads = orthogonality({n: trainable[f"{module}.{n}"] for n in ("lora_A", "lora_B")})
            loss += share * penalty
            for leaf, grad in penalty_grads.items():
                grads[f"{module}.{leaf}"] = grads[f"{module}.{leaf}"] + share * grad
        return result._replace(loss=loss, grads=grads)

    def after_update(step, trainable, grads, memory):
        importance = {module: direction_importance(module, trainable, grads, memory, settings) for module in modules}
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

    return penalised, after_update
