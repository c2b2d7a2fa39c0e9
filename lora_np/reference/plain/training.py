"""SPEC.md's training, spectra and NF4 as a program, in their plainest form, with room for mistakes."""

import math

import numpy as np

from . import model as pm

RECORDED = (1, 10, 50)
CODE_POINTS = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip


def clip(grads, max_norm, wrong):
    """(clipped, norm)."""
    norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in grads.values()))
    if wrong == "norm not rooted":
        norm = norm**2
    if wrong == "clipping left out" or (norm <= max_norm and wrong != "gradients stretched to the norm"):
        return grads, norm
    if wrong == "each array clipped by its own norm":
        own = {name: float(np.linalg.norm(g)) for name, g in grads.items()}
        return {name: g * min(1.0, max_norm / max(own[name], 1e-300)) for name, g in grads.items()}, norm
    if wrong == "each number clipped":
        return {name: np.clip(g, -max_norm, max_norm) for name, g in grads.items()}, norm
    factor = max_norm / (norm + 1e-6 if wrong == "norm + 1e-6" else norm)
    return {name: g * factor for name, g in grads.items()}, norm


def rate(step, about, peak, wrong):
    w, N = about["warmup_steps"], about["steps"]
    f = 0.0 if wrong == "final share left out" else about["final_share"]
    if wrong == "warm-up left out":
        w = 0
    if wrong == "schedule a step ahead":
        step = step + 1
    if step < w:
        late = {"first step at a rate of 0": step / w, "warm-up a step late": step / (w + 1)}
        return peak * late.get(wrong, (step + 1) / (w + 1))
    last = N - 1 if wrong == "last step at a rate of 0" else N
    done = (step - (0 if wrong == "decay from the first step" else w)) / max(1, last - w)
    c = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[about["schedule"]]
    return peak * (f + (1.0 - f) * c)


def adamw(p, g, m, v, t, eta, about, wrong):
    """(p, m, v) of one array after step t."""
    b1, b2, eps, decay = (about[name] for name in ("beta1", "beta2", "eps", "weight_decay"))
    if wrong == "betas exchanged":
        b1, b2 = b2, b1
    if wrong == "AdamW's settings written into the code":
        b1, b2, eps = 0.9, 0.999, 1e-8
    if wrong == "no weight decay" or (p.ndim < 2 and wrong != "biases decay too"):
        decay = 0.0
    if wrong == "decay coupled with the gradient":
        g, decay = g + decay * p, 0.0
    old_m, old_v = m, v
    m = b1 * m + (1.0 - b1) * g
    v = b2 * v + (1.0 - b2) * g * g
    if wrong == "moments without 1 - beta":
        m, v = b1 * old_m + g, b2 * old_v + g * g
    used_m, used_v = (old_m, old_v) if wrong == "moments updated after use" else (m, v)
    t = t + 1 if wrong == "bias correction a step ahead" else t
    c1, c2 = 1.0 - b1**t, 1.0 - b2**t
    if wrong == "no bias correction":
        c1 = c2 = 1.0
    if wrong == "no bias correction of v":
        c2 = 1.0
    m_hat, v_hat = used_m / c1, used_v / c2
    denominator = np.sqrt(v_hat) + eps
    if wrong == "AdamW's epsilon inside the root":
        denominator = np.sqrt(v_hat + eps)
    if wrong == "AdamW's epsilon before the correction":
        denominator = (np.sqrt(used_v) + eps) / math.sqrt(c2)
    if wrong == "AdamW without epsilon":
        denominator = np.sqrt(v_hat)
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = p - eta * m_hat / denominator
    shrunk = moved - (1.0 if wrong == "decay without the learning rate" else eta) * decay * p
    return moved * (1.0 - eta * decay) if wrong == "decay after the step" else shrunk, m, v


def eta_of(name, learning_rate, about, wrong):
    factor = about["rate_factors"].get(name.rpartition(".")[2], 1.0)
    return learning_rate * (1.0 if wrong == "rate factors left out" else factor)


# ---------------------------------------------------------------- whole cases


def clip_case(settings, t, wrong):
    grads = {name.removeprefix("grad."): array for name, array in t.items()}
    clipped, norm = clip(grads, settings["max_norm"], wrong)
    return {"norm": np.asarray(norm), **{f"clipped.{name}": g for name, g in clipped.items()}}


def schedule_case(settings, t, wrong):
    return {"learning_rate": np.array([rate(i, settings, settings["peak"], wrong) for i in range(settings["steps"])])}


def adamw_case(settings, t, wrong):
    names = [name.removeprefix("start.") for name in t if name.startswith("start.")]
    p = {name: t[f"start.{name}"] for name in names}
    m = v = {name: np.zeros_like(array) for name, array in p.items()}
    found = {}
    for step, learning_rate in enumerate(settings["learning_rate"], 1):
        made = {}
        for name in names:
            eta = eta_of(name, learning_rate, settings["optimiser"], wrong)
            g = t[f"grad.{name}"][step - 1]
            made[name] = adamw(p[name], g, m[name], v[name], step, eta, settings["optimiser"], wrong)
        p, m, v = ({name: made[name][i] for name in names} for i in range(3))
        for kind, arrays in (("m", m), ("v", v), ("after", p)):
            found |= {f"step.{step}.{kind}.{name}": array for name, array in arrays.items()}
    return found


def train_case(settings, t, wrong):
    """All steps, or those up to settings["until"], for who looks for a mistake that shows early."""
    about, adapter = settings["train"], settings["adapter"]
    weights = {name: a for name, a in t.items() if not name.startswith(("batches.", "kept.")) and name != "order"}
    names = [name for name in weights if not adapter or ".lora_" in name or name == "head.weight"]
    m = v = {name: np.zeros_like(weights[name]) for name in names}
    found, since = {}, {"loss": [], "grad_norm": [], "learning_rate": []}
    for s in range(settings.get("until", about["steps"])):
        at = s % len(t["batches.ids"]) if wrong == "batches in their own order" else t["order"][s]
        now = {name: t[f"batches.{name}"][at] for name in ("ids", "targets", "lengths")}
        drawn = 0 if wrong == "the first step's masks for all" else s
        for name, kept in t.items():
            if name.startswith("kept."):
                scale = 1.0 if wrong == "dropout without 1/(1 - p)" else 1.0 / (1.0 - about["dropout"])
                now["mask." + name.removeprefix("kept.")] = kept[drawn].astype(weights["tok_emb.weight"].dtype) * scale
        made = pm.loss_and_gradients(settings, {**weights, **now}, wrong)
        grads = {name: made[f"grad.{name}"] for name in names}
        clipped, norm = clip(grads, about["clip_norm"], wrong)
        learning_rate = rate(s, about, about["learning_rate"], wrong)
        for name, value in zip(since, (made["loss"], norm, learning_rate)):
            since[name].append(value)
        updated = {}
        for name in names:
            eta = eta_of(name, learning_rate, about["optimiser"], wrong)
            updated[name] = adamw(weights[name], clipped[name], m[name], v[name], s + 1, eta, about["optimiser"], wrong)
        p, m, v = ({name: updated[name][i] for name in names} for i in range(3))
        weights = {**weights, **p}
        if s + 1 in RECORDED:
            found |= {f"step.{s + 1}.{name}": np.array(values) for name, values in since.items()}
            found |= {f"step.1.grad.{name}": g for name, g in grads.items()} if s == 0 else {}
            found |= {f"step.{s + 1}.after.{name}": array for name, array in p.items()}
            since = {name: [] for name in since}
    return found


def spectrum_case(settings, t, wrong):
    update = t["before"] - t["after"] if wrong == "update with the sign reversed" else t["after"] - t["before"]
    u, sigma, vt = np.linalg.svd(update.astype(np.float64))
    if wrong == "eigenvalues for singular values":
        sigma = sigma**2
    if wrong == "smallest singular value first":
        sigma = sigma[::-1]
    power = sigma if wrong == "energy of sigma for sigma squared" else sigma**2
    energy = np.cumsum(power) / power.sum()
    found = {"update": update, "singular_values": sigma}
    found["energy"] = power / power.sum() if wrong == "energy not cumulated" else energy
    for k in settings["k"]:
        found |= {f"left.{k}": u[:, :k] @ u[:, :k].T, f"right.{k}": vt[:k].T @ vt[:k]}
    return found


def nf4_case(settings, t, wrong):
    weight, size = t["weight"], settings["block_size"]
    blocks = weight.reshape(-1, size)
    absmax = np.abs(blocks).max(axis=1).astype(np.float32)
    if wrong == "largest weight for largest magnitude":
        absmax = blocks.max(axis=1).astype(np.float32)
    middles = ((CODE_POINTS[:-1] + CODE_POINTS[1:]) / 2).astype(weight.dtype)
    codes = np.searchsorted(middles, blocks / np.where(absmax > 0, absmax, 1).astype(np.float32)[:, None])
    if wrong == "code below, not nearest":
        below = np.searchsorted(CODE_POINTS, blocks / np.where(absmax > 0, absmax, 1)[:, None], side="right") - 1
        codes = np.clip(below, 0, 15)
    codes = codes.astype(np.uint8)
    first, second = codes.reshape(-1, 2).T
    found = {"absmax": absmax, "codes": codes.ravel(), "packed": first << 4 | second}
    if wrong == "codes packed low half first":
        found["packed"] = second << 4 | first
    scales = absmax
    if settings["double"]:
        mean = np.float32(absmax.mean(dtype=np.float64))
        mean = np.float32(0.0) if wrong == "mean of the scales not taken off" else mean
        starts = np.arange(0, len(absmax), 256)
        steps = np.maximum.reduceat(np.abs(absmax - mean), starts) / np.float32(127)
        if wrong == "128 steps for 127":
            steps = np.maximum.reduceat(np.abs(absmax - mean), starts) / np.float32(128)
        each = np.repeat(steps, 256)[: len(absmax)]
        quotient = (absmax - mean) / np.where(each > 0, each, np.float32(1))
        coded = np.trunc(quotient) if wrong == "scale codes cut, not rounded" else np.rint(quotient)
        coded = np.clip(coded, -127, 127).astype(np.int8)
        scales = np.maximum(mean + each * coded.astype(np.float32), np.float32(0))
        found |= {"mean": mean, "steps": steps, "scale_codes": coded}
    dense = CODE_POINTS.astype(weight.dtype)[codes] * scales.astype(weight.dtype)[:, None]
    return {**found, "scales": scales, "dequantised": dense.reshape(weight.shape)}
