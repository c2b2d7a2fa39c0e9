"""Tier 3, first half: clipping, learning-rate schedules, AdamW, and fifty steps of full fine-tuning, LoRA and DoRA.

Training draws no random numbers: the batches, their order and the dropout masks are inputs.
"""

import numpy as np

from ... import training
from ...data import Batch
from ...model import loss_and_gradients
from ...model.objective import Objective
from ..plain.calls import under
from . import model
from .case import ReferenceCase
from .draws import as_float32, bell, bits_of, keep_mask, whole

RECORDED = (1, 10, 50)  # steps after which parameters are recorded

# ---------------------------------------------------------------- what the package computes


def clip(settings, t):
    clipped, norm = training.clip_by_global_norm(under("grad.", t), settings["max_norm"])
    return {"norm": np.asarray(norm), **{f"clipped.{name}": array for name, array in clipped.items()}}


def schedule(settings, t):
    steps, others = settings["steps"], {name: value for name, value in settings.items() if name != "steps"}
    rates = [training.learning_rate_at(i, steps, **others) for i in range(steps)]
    return {"learning_rate": np.array(rates)}


def optimiser_of(settings):
    return training.AdamW(**settings["optimiser"])


def adamw(settings, t):
    """Take one AdamW step for each gradient along the first axis of t["grad.…"]; the moments start at zero."""
    params, grads = under("start.", t), under("grad.", t)
    m = v = {name: np.zeros_like(array) for name, array in params.items()}
    outputs = {}
    for step, rate in enumerate(settings["learning_rate"], 1):
        of_step = {name: grads[name][step - 1] for name in params}
        params, m, v = training.adamw_update(params, of_step, m, v, step, rate, optimiser_of(settings))
        for kind, arrays in (("m", m), ("v", v), ("after", params)):
            outputs |= {f"step.{step}.{kind}.{name}": array for name, array in arrays.items()}
    return outputs


def train(settings, t):
    """Train with the package; return losses, norms, learning rates, the first step's gradients, and parameters."""
    (config, base, adapter), about = model.objects(settings, t), settings["train"]
    fields = ("steps", "learning_rate", "schedule", "warmup_steps", "final_share", "clip_norm")
    train_config = training.TrainConfig(**{name: about[name] for name in fields}, optimiser=optimiser_of(about))
    state, outputs = training.initial_state(training.trainable_arrays(base, adapter)), {}
    since = []  # measurements of the steps since the parameters were last recorded
    for step in range(about["steps"]):
        ids, targets, lengths = (t[f"batches.{name}"][t["order"][step]] for name in ("ids", "targets", "lengths"))
        batch = Batch(ids, targets, lengths, np.arange(len(ids)))
        objective = objective_at(step, t, config, base, adapter, about["dropout"])
        if step == 0:
            grads = objective(state.trainable, batch, None).grads
        state, measured = training.train_step(state, objective, batch, train_config)
        since.append(measured)
        if step + 1 in RECORDED:
            now, columns = f"step.{step + 1}", {name: np.array([m[name] for m in since]) for name in measured}
            outputs[f"{now}.loss"] = columns["loss"]
            outputs |= {f"{now}.grad.{name}": grad for name, grad in grads.items()} if step == 0 else {}
            outputs |= {f"{now}.{name}": columns[name] for name in ("grad_norm", "learning_rate")}
            outputs |= {f"{now}.after.{name}": array.copy() for name, array in state.trainable.items()}
            since = []
    return outputs


def accumulate(settings, t):
    """Compute the loss and gradients of a batch from those of its shards, which are stacked along the first axis."""
    shards = []
    for i, (loss, n) in enumerate(zip(t["loss"], t["n_targets"])):
        shards.append(Objective(loss, int(n), {name: array[i] for name, array in under("grad.", t).items()}))
    loss, grads = training.mean_over_shards(shards)
    return {"mean.loss": np.asarray(loss), **{f"mean.grad.{name}": array for name, array in grads.items()}}


def objective_at(step, t, config, base, adapter, p):
    """The objective of one step, whose dropout masks are 1/(1 − p) for kept entries and 0 elsewhere."""
    dtype = base["tok_emb.weight"].dtype
    masks = {place: kept[step].astype(dtype) / (1.0 - p) for place, kept in under("kept.", t).items()}

    def objective(trainable, batch, rng):
        params, attached = training.attach(base, adapter, trainable)
        return loss_and_gradients(params, batch, config, attached, tuple(trainable), masks)

    return objective


# ---------------------------------------------------------------- the cases


def clip_case(id, share, *about, scale=1.0):
    bits, shapes = bits_of(id), {"a.weight": (3, 5), "a.bias": (5,), "b": (2, 4)}
    inputs = {f"grad.{name}": bell(bits, shape, scale) for name, shape in shapes.items()}
    norm = np.sqrt(sum(np.sum(grad**2) for grad in inputs.values()))
    return ReferenceCase(id, 3, "clip", {"max_norm": float(as_float32(share * norm))}, inputs, clip, *about)


def schedule_case(kind, *about, final_share=0.0):
    settings = {"schedule": kind, "steps": 12, "peak": 0.01, "warmup_steps": 3, "final_share": final_share}
    return ReferenceCase(f"schedule-{kind}", 3, "schedule", settings, {}, schedule, *about)


OPTIMISER = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1, "rate_factors": {}}


def adamw_case(id, *about, scale=1.0, shapes=None, **changes):
    bits, shapes = bits_of(id), shapes or {"a.weight": (5, 4), "a.bias": (4,)}
    inputs = {f"start.{name}": bell(bits, shape) for name, shape in shapes.items()}
    inputs |= {f"grad.{name}": bell(bits, (3, *shape), scale) for name, shape in shapes.items()}
    settings = {"optimiser": {**OPTIMISER, **changes}, "learning_rate": [0.01, 0.02, 0.005]}
    return ReferenceCase(id, 3, "adamw", settings, inputs, adamw, *about)


def run_case(id, names, *about, clip_norm, schedule, final_share, optimiser, kind="lora", base=model.SIZES, **changes):
    bits, steps, n_batches, p = bits_of(id), RECORDED[-1], 4, 0.25
    sizes = {**base, "n_layers": 1, "dropout": 0.0 if names else p, **changes}
    settings, arrays = model.draw_model(bits, sizes, names, kind=kind)
    arrays |= {name: np.zeros_like(a) for name, a in arrays.items() if name.endswith("lora_B")}  # initial values
    batches = [model.draw_batch(bits, sizes, (5, 4)) for _ in range(n_batches)]
    inputs = {f"batches.{name}": np.stack([batch[name] for batch in batches]) for name in batches[0]}
    inputs["order"] = whole(bits, (steps,), n_batches)
    shapes = model.mask_shapes(settings, arrays, batches[0]["ids"].shape, p)
    inputs |= {f"kept.{place}": keep_mask(bits, (steps, *shape), p) for place, shape in shapes.items()}
    settings["train"] = {
        "steps": steps, "learning_rate": 0.01, "schedule": schedule, "warmup_steps": 5, "final_share": final_share,
        "clip_norm": clip_norm, "dropout": p, "optimiser": {**OPTIMISER, **optimiser},
    }  # fmt: skip
    return ReferenceCase(id, 3, "train", settings, {**inputs, **arrays}, train, *about)


def training_cases():
    """The cases for clipping, learning-rate schedules, AdamW and whole runs."""
    bits = bits_of("accumulate")
    shards = {"loss": bell(bits, (3,)), "n_targets": np.array([2, 7, 4])}
    shards |= {"grad.a.weight": bell(bits, (3, 4, 5)), "grad.a.bias": bell(bits, (3, 4))}
    return [
        clip_case("clip-above", 0.25, "the norm of all arrays together is above max_norm: all times max_norm / norm",
                  "each array clipped by its own norm"),
        clip_case("clip-below", 2.5, "the norm is below max_norm: nothing changes", "gradients stretched to max_norm"),
        clip_case("clip-small", 0.5, "a norm of about 0.005", "norm + 1e-6 in the norm's place, as PyTorch has it",
                  scale=1e-3),
        schedule_case("constant", "three steps of warm-up, then the peak", "a first step at a rate of 0"),
        schedule_case("linear", "warm-up, then a straight line",
                      "a last step at a rate of 0: the line ends one step later; final_share for the cosine alone",
                      final_share=0.375),
        schedule_case("cosine", "warm-up, then half a cosine down to an eighth of the peak", "final_share forgotten",
                      final_share=0.125),
        adamw_case("adamw", "three steps: a matrix, which decays, and a bias, which does not", "bias correction left "
                   "out; decay coupled with the gradient; biases that decay; moments updated after use"),
        adamw_case("adamw-small-gradients", "gradients near ε, which then matters",
                   "ε inside the root; ε added before the bias correction", scale=1e-7),
        adamw_case("adamw-large-eps", "ε = 0.1, β = 0.8 and 0.95", "an ε or a β written into the code", eps=0.1,
                   beta1=0.8, beta2=0.95, weight_decay=0.3),
        adamw_case("adamw-zero-gradient", "gradients of 0: only the decay moves a matrix, and nothing a bias",
                   "0 / 0 where ε is forgotten", ("edge",), scale=0.0),
        adamw_case("adamw-rate-factors", "LoRA+: B at 16 times the rate, A at half of it", "a factor that leaves out "
                   "the decay", shapes={"a.lora_A": (2, 4), "a.lora_B": (5, 2)},
                   rate_factors={"lora_A": 0.5, "lora_B": 16.0}),
        ReferenceCase("accumulate", 3, "accumulate", {}, shards, accumulate, "the mean of three shards of 2, 7 and 4 "
                      "real targets", "the mean of the shards' means; their sum"),
        run_case("train-full", (), "50 steps of a language model, all parameters, with dropout, clipping and a cosine",
                 "all of training's; what a single step does not show", clip_norm=3.0, schedule="cosine",
                 final_share=0.125,
                 optimiser={"beta1": 0.8, "beta2": 0.97, "eps": 1e-3, "weight_decay": 0.5}),
        run_case("train-lora", model.QV, "50 steps of LoRA on q_proj and v_proj and of a classifier's head, from B = "
                 "0, with dropout on the adapters' inputs, clipping and a straight line",
                 "base weights that move; masks of another step", clip_norm=1.25, schedule="linear", final_share=0.25,
                 optimiser={"beta1": 0.7, "rate_factors": {"lora_A": 0.5, "lora_B": 4.0}}, n_classes=3, n_heads=4),
        run_case("train-dora", ("k_proj", "up_proj"), "50 steps of DoRA on k_proj and up_proj of a language model",
                 "magnitudes that are not trained, or that decay: they have one axis", clip_norm=2.0,
                 schedule="constant", final_share=0.0, kind="dora",
                 optimiser={"beta2": 0.95, "weight_decay": 0.3}, n_heads=2, layer_norm_eps=1e-3),
    ]  # fmt: skip
