"""Training against PyTorch: 100 steps with a schedule, AdamW, gradient accumulation and clipping.

test_reference_torch.py compares the parts in the cases that have extreme numbers.
"""

import math

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, init_adapter
from lora_np.model import draw_masks
from lora_np.training import AdamW, TrainConfig, model_objective, stream, train

from .comparison import TRAINED, check_all

torch = pytest.importorskip("torch")

from torch.optim import lr_scheduler  # noqa: E402

from .torch_model import LLAMAS, loss_of, model_case, random_batch, set_masks, torch_model  # noqa: E402

ZERO = ("k_proj.bias",)  # of GPT-2

pytestmark = [pytest.mark.oracle, pytest.mark.parametrize("seed", [0, 1])]


# ---------------------------------------------------------------- PyTorch's side


def torch_schedule(optimiser, settings):
    """PyTorch's own schedulers for the warm-up and the decay; none of lora_np's formulas."""
    peak, warmup, rest = settings.learning_rate, settings.warmup_steps, settings.steps - settings.warmup_steps
    decay = {
        "constant": lambda: lr_scheduler.ConstantLR(optimiser, 1.0),
        "linear": lambda: lr_scheduler.LinearLR(optimiser, 1.0, settings.final_share, rest),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimiser, rest, settings.final_share * peak),
    }[settings.schedule]
    if not warmup:
        return decay()
    warm_up = lr_scheduler.LinearLR(optimiser, 1.0 / (warmup + 1), 1.0, warmup)
    return lr_scheduler.SequentialLR(optimiser, [warm_up, decay()], [warmup])


def torch_adamw(parameters, settings):
    """torch.optim.AdamW with decay for arrays of two axes and more alone."""
    config = settings.optimiser
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, settings.learning_rate, betas=betas, eps=config.eps)


def torch_clip(parameters, max_norm):
    """clip_grad_norm_, freed of the 1e-6 that PyTorch adds to the norm; returns the norm before clipping."""
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in parameters))
    return float(torch.nn.utils.clip_grad_norm_(parameters, max_norm * (norm + 1e-6) / norm))


def torch_train(model, parameters, batches, settings, masks_at):
    """Train in PyTorch on whole batches; return parameters, m, v and history, as in a TrainState."""
    optimiser = torch_adamw(parameters.values(), settings)
    schedule = torch_schedule(optimiser, settings)
    history = []
    for step in range(settings.steps):
        batch = batches[step % len(batches)]
        set_masks(model.base_model.model if hasattr(model, "base_model") else model, masks_at(step, batch))
        loss = loss_of(model(torch.tensor(batch.ids), torch.tensor(batch.lengths)), batch.targets)
        optimiser.zero_grad()
        loss.backward()
        norm = torch_clip(list(parameters.values()), settings.clip_norm)
        history.append((loss.item(), schedule.get_last_lr()[0], norm))
        optimiser.step()
        schedule.step()
    m = {name: optimiser.state[p]["exp_avg"] for name, p in parameters.items()}
    v = {name: optimiser.state[p]["exp_avg_sq"] for name, p in parameters.items()}
    history = dict(zip(("loss", "learning_rate", "grad_norm"), np.array(history).T))
    return parameters, m, v, history


# ---------------------------------------------------------------- 100 steps

QV = dict(r=2, alpha=4.0, targets=("q_proj", "v_proj"))
ALL = dict(r=3, alpha=6.0, targets=("all-linear",), rslora=True)
SEVEN = dict(r=4, alpha=16.0, targets=("all-linear",))
COSINE = dict(schedule="cosine", warmup_steps=10, final_share=0.1)
LINEAR = dict(schedule="linear", warmup_steps=6)
TIED, UNTIED, BIASES, ONE_KEY, _ = LLAMAS
RUNS = {  # (model, classes, adapter, dropout, schedule, shards, clip_norm: near the middle of the run's norms)
    "full, language model": ("GPT-2", 0, None, 0.0, COSINE, 3, 1.5),
    "full, classifier": ("GPT-2", 4, None, 0.0, LINEAR, 2, 0.3),
    "full, dropout": ("GPT-2", 0, None, 0.2, LINEAR, 2, 1.5),
    "LoRA q,v and head, classifier": ("GPT-2", 4, QV, 0.0, LINEAR, 3, 1.0),
    "LoRA all linear, language model": ("GPT-2", 0, ALL, 0.0, COSINE, 2, 1.6),
    "LoRA all linear and head, dropout": ("GPT-2", 4, dict(ALL, dropout=0.3), 0.2, COSINE, 2, 2.0),
    "Llama, full, tied": (TIED, 0, None, 0.0, COSINE, 2, 1.5),
    "Llama, full, untied": (UNTIED, 0, None, 0.0, COSINE, 2, 1.5),
    "Llama, full, classifier": (BIASES, 4, None, 0.0, COSINE, 2, 0.3),
    "Llama, LoRA, all seven": (TIED, 0, SEVEN, 0.0, COSINE, 2, 1.6),
    "Llama, LoRA q,v and head": (ONE_KEY, 4, QV | {"alpha": 3.0}, 0.0, COSINE, 2, 0.9),
    "Llama, DoRA, all seven": (UNTIED, 0, SEVEN | {"kind": "dora"}, 0.0, COSINE, 2, 3.0),
}


@pytest.mark.parametrize("name, n_classes, adapter, dropout, schedule, shards, clip_norm", RUNS.values(), ids=RUNS)
def test_100_steps(name, n_classes, adapter, dropout, schedule, shards, clip_norm, seed):
    """Clipped, scheduled, decayed and accumulated; PyTorch sees each batch whole. With seed 1 blocks are recomputed."""
    rng, config, params, _ = model_case(name, n_classes, seed, dropout=dropout)
    batches = [random_batch(config, rng, rng.integers(2, 6, size=8)) for _ in range(3)]
    optimiser = AdamW(weight_decay=0.1)
    settings = TrainConfig(100, 0.01, **schedule, optimiser=optimiser, clip_norm=clip_norm, shards=shards, seed=seed)
    if adapter is None:
        start, trainable, model = None, params, torch_model(params, config)
        parameters = dict(model.named_parameters())
    else:
        start, model, parameters = lora_run(adapter, params, config, rng)
        trainable = start.weights

    def masks_at(step, batch):
        """The masks that each shard draws, one above the other: dropout is data here, not under test."""
        rows = np.array_split(batch.ids, shards)
        drawn = [
            draw_masks(config, ids.shape, stream(seed, "masks", step, index), start, np.float64)
            for index, ids in enumerate(rows)
        ]
        return {place: np.concatenate([masks[place] for masks in drawn]) for place in drawn[0]}

    expected, m, v, history = torch_train(model, parameters, batches, settings, masks_at)
    objective = model_objective(params, config, start, recompute=bool(seed))
    state = train(trainable, objective, lambda rng: batches, settings)

    clipped = (history["grad_norm"] > clip_norm).mean()
    assert 0.1 < clipped < 0.9, f"{clipped:.0%} of the steps are clipped: no test of both ways"
    assert history["loss"][-10:].mean() < 0.8 * history["loss"][:10].mean(), "learns something"
    group = f"100 steps {'of LoRA and DoRA' if adapter else 'in full'}"
    # A key's bias has rounding errors for a gradient, and AdamW divides them by ε = 1e-8.
    zero = ZERO if name == "GPT-2" else ()
    check_all(f"{group}, parameters", state.trainable, expected, TRAINED, zero)
    check_all(f"{group}, AdamW's m", state.m, m, TRAINED, zero)
    check_all(f"{group}, AdamW's v", state.v, v, TRAINED, zero)
    check_all(f"{group}, losses, rates and norms", state.history, history, TRAINED)


def lora_run(settings, params, config, rng):
    """A fresh adapter (B = 0), PEFT's model with it, and the parameters PEFT trains."""
    peft = pytest.importorskip("peft")
    from .peft_model import load_trained, lora_config, trained_parameters

    adapter = init_adapter(params, AdapterConfig(**settings, train_head=bool(config.n_classes)), rng)
    model = peft.get_peft_model(torch_model(params, config), lora_config(adapter.config, config.n_classes))
    load_trained(model, adapter.weights)
    return adapter, model, trained_parameters(model)
