"""SPEC.md's training, spectra and NF4 as a program, in their plainest form; see `operations.py`."""

import math

import numpy as np

from .model import loss_and_gradients

RECORDED = (1, 10, 50)
CODE_POINTS = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip


def clip(grads, max_norm):
    """(clipped, norm)."""
    norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in grads.values()))
    if norm <= max_norm:
        return grads, norm
    return {name: g * (max_norm / norm) for name, g in grads.items()}, norm


def rate(step, about, peak):
    w, N, f = about["warmup_steps"], about["steps"], about["final_share"]
    if step < w:
        return peak * ((step + 1) / (w + 1))
    done = (step - w) / max(1, N - w)
    c = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[about["schedule"]]
    return peak * (f + (1.0 - f) * c)


def adamw(p, g, m, v, t, eta, about):
    """(p, m, v) of one array after step t."""
    b1, b2, eps, decay = (about[name] for name in ("beta1", "beta2", "eps", "weight_decay"))
    decay = decay if p.ndim >= 2 else 0.0
    m = b1 * m + (1.0 - b1) * g
    v = b2 * v + (1.0 - b2) * g * g
    m_hat, v_hat = m / (1.0 - b1**t), v / (1.0 - b2**t)
    moved = p - eta * m_hat / (np.sqrt(v_hat) + eps)
    return moved - eta * decay * p, m, v


def adamw_step(p, grads, m, v, t, learning_rate, about):
    """(p, m, v) of all arrays, as dicts."""
    made = {}
    for name in p:
        eta = learning_rate * about["rate_factors"].get(name.rpartition(".")[2], 1.0)
        made[name] = adamw(p[name], grads[name], m[name], v[name], t, eta, about)
    return ({name: arrays[i] for name, arrays in made.items()} for i in range(3))


# ---------------------------------------------------------------- whole cases


def clip_case(settings, t):
    clipped, norm = clip({name.removeprefix("grad."): array for name, array in t.items()}, settings["max_norm"])
    return {"norm": norm, **{f"clipped.{name}": g for name, g in clipped.items()}}


def schedule_case(settings, t):
    return {"learning_rate": np.array([rate(i, settings, settings["peak"]) for i in range(settings["steps"])])}


def adamw_case(settings, t):
    p = {name.removeprefix("start."): array for name, array in t.items() if name.startswith("start.")}
    m = v = {name: np.zeros_like(array) for name, array in p.items()}
    outputs = {}
    for step, learning_rate in enumerate(settings["learning_rate"], 1):
        grads = {name: t[f"grad.{name}"][step - 1] for name in p}
        p, m, v = adamw_step(p, grads, m, v, step, learning_rate, settings["optimiser"])
        for kind, arrays in (("m", m), ("v", v), ("after", p)):
            outputs |= {f"step.{step}.{kind}.{name}": array for name, array in arrays.items()}
    return outputs


def train_case(settings, t):
    """All steps, or only the first settings["until"]: enough for a mistake that shows early."""
    about = settings["train"]
    weights = {name: a for name, a in t.items() if not name.startswith(("batches.", "kept.")) and name != "order"}
    trained = [name for name in weights if not settings["adapter"] or ".lora_" in name or name == "head.weight"]
    m = v = {name: np.zeros_like(weights[name]) for name in trained}
    outputs, since = {}, {"loss": [], "grad_norm": [], "learning_rate": []}
    for s in range(settings.get("until", about["steps"])):
        at = t["order"][s]
        now = {name: t[f"batches.{name}"][at] for name in ("ids", "targets", "lengths")}
        for name, array in t.items():
            if name.startswith("kept."):
                mask = array[s].astype(weights["tok_emb.weight"].dtype) * (1.0 / (1.0 - about["dropout"]))
                now["mask." + name.removeprefix("kept.")] = mask
        made = loss_and_gradients(settings, {**weights, **now})
        grads = {name: made[f"grad.{name}"] for name in trained}
        clipped, norm = clip(grads, about["clip_norm"])
        learning_rate = rate(s, about, about["learning_rate"])
        for name, value in zip(since, (made["loss"], norm, learning_rate)):
            since[name].append(value)
        p = {name: weights[name] for name in trained}
        p, m, v = adamw_step(p, clipped, m, v, s + 1, learning_rate, about["optimiser"])
        weights = {**weights, **p}
        if s + 1 in RECORDED:
            outputs |= {f"step.{s + 1}.{name}": np.array(values) for name, values in since.items()}
            outputs |= {f"step.1.grad.{name}": g for name, g in grads.items()} if s == 0 else {}
            outputs |= {f"step.{s + 1}.after.{name}": array for name, array in p.items()}
            since = {name: [] for name in since}
    return outputs


def spectrum_case(settings, t):
    update = t["after"] - t["before"]
    u, sigma, vt = np.linalg.svd(update.astype(np.float64))
    power = sigma**2
    outputs = {"update": update, "singular_values": sigma, "energy": np.cumsum(power) / power.sum()}
    for k in settings["k"]:
        outputs |= {f"left.{k}": u[:, :k] @ u[:, :k].T, f"right.{k}": vt[:k].T @ vt[:k]}
    return outputs


def nf4_case(settings, t):
    weight = t["weight"]
    blocks = weight.reshape(-1, settings["block_size"])
    absmax = np.abs(blocks).max(axis=1).astype(np.float32)
    scaled = blocks / np.where(absmax > 0, absmax, 1).astype(np.float32)[:, None]
    middles = ((CODE_POINTS[:-1] + CODE_POINTS[1:]) / 2).astype(weight.dtype)
    codes = np.searchsorted(middles, scaled).astype(np.uint8)
    first, second = codes.reshape(-1, 2).T
    outputs = {"absmax": absmax, "codes": codes.ravel(), "packed": first << 4 | second}
    scales = absmax
    if settings["double"]:
        mean = np.float32(absmax.mean(dtype=np.float64))
        steps = np.maximum.reduceat(np.abs(absmax - mean), np.arange(0, len(absmax), 256)) / np.float32(127)
        each = np.repeat(steps, 256)[: len(absmax)]
        quotient = (absmax - mean) / np.where(each > 0, each, np.float32(1))
        coded = np.clip(np.rint(quotient), -127, 127).astype(np.int8)
        scales = np.maximum(mean + each * coded.astype(np.float32), np.float32(0))
        outputs |= {"mean": mean, "steps": steps, "scale_codes": coded}
    dense = CODE_POINTS.astype(weight.dtype)[codes] * scales.astype(weight.dtype)[:, None]
    return {**outputs, "scales": scales, "dequantised": dense.reshape(weight.shape)}
