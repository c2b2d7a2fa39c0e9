"""Training, the spectrum of an update, and NF4, as defined in SPEC.md."""

import math

import numpy as np

from . import calls
from . import model as plain_model


def clip(grads, max_norm):
    norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
    factor = max_norm / norm if norm > max_norm else 1.0
    return norm, {name: g * factor for name, g in grads.items()}


def rate_at(i, schedule, steps, peak, warmup_steps, final_share):
    if i < warmup_steps:
        return peak * (i + 1) / (warmup_steps + 1)
    done = (i - warmup_steps) / max(1, steps - warmup_steps)
    share = 1.0
    if schedule == "linear":
        share = 1.0 - done
    if schedule == "cosine":
        share = 0.5 * (1.0 + math.cos(math.pi * done))
    return peak * (final_share + (1.0 - final_share) * share)


def adamw_step(p, g, m, v, t, rate, name, beta1, beta2, eps, weight_decay, rate_factors):
    """Update one array: return its p, m and v after step t = 1, 2, …"""
    eta = rate * rate_factors.get(name.rpartition(".")[2], 1.0)
    decay = weight_decay if p.ndim >= 2 else 0.0
    m = beta1 * m + (1.0 - beta1) * g
    v = beta2 * v + (1.0 - beta2) * g**2
    m_hat = m / (1.0 - beta1**t)
    v_hat = v / (1.0 - beta2**t)
    p = p - eta * decay * p - eta * m_hat / (np.sqrt(v_hat) + eps)
    return p, m, v


def step_of_all(states, grads, t, rate, optimiser):
    return {name: adamw_step(p, grads[name], m, v, t, rate, name, **optimiser) for name, (p, m, v) in states.items()}


def start_of(params):
    return {name: (p, np.zeros_like(p), np.zeros_like(p)) for name, p in params.items()}


def grpo(settings, t):
    log_probs, rewards, lengths, clip = t["log_probs"], t["rewards"], t["lengths"], settings["clip"]
    difference = rewards - rewards.mean(axis=1, keepdims=True)
    deviation = np.sqrt((difference**2).sum(axis=1, keepdims=True) / (rewards.shape[1] - 1))
    advantages = difference / (deviation + 1e-4)
    A, ratio = advantages.reshape(-1, 1), np.exp(log_probs - t["old"])
    clipped = np.where(A > 0, ratio > 1 + clip, ratio < 1 - clip)
    d = t["reference"] - log_probs
    gains = np.where(clipped, np.clip(ratio, 1 - clip, 1 + clip), ratio) * A - settings["beta"] * (np.exp(d) - d - 1)
    slopes = np.where(clipped, 0.0, ratio * A) - settings["beta"] * (1 - np.exp(d))
    real = np.arange(log_probs.shape[1]) < lengths[:, None]
    weights = np.where(real, 1 / (len(lengths) * lengths[:, None]), 0.0).astype(log_probs.dtype)
    grad = -settings["grad_loss"] * weights * slopes
    return {"advantages": advantages, "loss": -(weights * gains).sum(), "grad.log_probs": grad}


def dpo(settings, t):
    beta, change = settings["beta"], t["log_probs"] - t["reference"]
    margin = beta * (change[:, 0] - change[:, 1])
    losses = np.logaddexp(0.0, -margin)
    slope = -settings["grad_loss"] * beta * np.exp(-np.logaddexp(0.0, margin)) / len(margin)
    return {"loss": losses.mean(), "grad.log_probs": np.stack([slope, -slope], axis=1)}


def adamw(settings, t):
    outputs, states, grads = {}, start_of(calls.under("start.", t)), calls.under("grad.", t)
    for step, rate in enumerate(settings["learning_rate"], 1):
        of_step = {name: g[step - 1] for name, g in grads.items()}
        states = step_of_all(states, of_step, step, rate, settings["optimiser"])
        for name, (p, m, v) in states.items():
            outputs |= {f"step.{step}.m.{name}": m, f"step.{step}.v.{name}": v, f"step.{step}.after.{name}": p}
    return outputs


def accumulate(settings, t):
    shares = t["n_targets"] / t["n_targets"].sum()
    grads = calls.under("grad.", t)
    means = {f"mean.grad.{name}": (shares * g.T).T.sum(axis=0) for name, g in grads.items()}
    return {"mean.loss": (shares * t["loss"]).sum()} | means


def train(settings, t):
    about, outputs, log = settings["train"], {}, []
    fields = ("schedule", "steps", "warmup_steps", "final_share")
    if settings["adapter"]:
        params = {name: array for name, array in t.items() if ".lora_" in name or name == "head.weight"}
    else:
        params = {name: array for name, array in t.items() if name.endswith((".weight", ".bias"))}
    states = start_of(params)
    for step in range(1, settings.get("until", about["steps"]) + 1):
        batch = {name: array[t["order"][step - 1]] for name, array in calls.under("batches.", t).items()}
        each_kept = calls.under("kept.", t)
        masks = {f"mask.{name}": kept[step - 1] / (1.0 - about["dropout"]) for name, kept in each_kept.items()}
        now = {name: p for name, (p, _, _) in states.items()}
        acts, grads = plain_model.loss_and_gradients(settings, t | now | batch | masks)
        grads = {name: grads[name] for name in states}
        norm, clipped = clip(grads, about["clip_norm"])
        rate = rate_at(step - 1, peak=about["learning_rate"], **{name: about[name] for name in fields})
        states = step_of_all(states, clipped, step, rate, about["optimiser"])
        log.append((acts["loss"], norm, rate))
        if step == 1:
            outputs |= {f"step.1.grad.{name}": g for name, g in grads.items()}
        if step in (1, 10, 50):
            for name, column in zip(("loss", "grad_norm", "learning_rate"), zip(*log)):
                outputs[f"step.{step}.{name}"] = np.array(column)
            outputs |= {f"step.{step}.after.{name}": p for name, (p, _, _) in states.items()}
            log = []
    return outputs


def spectrum(settings, t):
    update = t["after"] - t["before"]
    U, sigma, Vt = np.linalg.svd(update, full_matrices=False)
    energy = np.cumsum(sigma**2) / (sigma**2).sum()
    outputs = {"update": update, "singular_values": sigma, "energy": energy}
    for k in settings["k"]:
        outputs[f"left.{k}"] = U[:, :k] @ U[:, :k].T
        outputs[f"right.{k}"] = Vt[:k].T @ Vt[:k]
    return outputs


def code_points():
    below = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635]
    near = [-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725]
    above = [0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
    return np.array(below + near + above)  # each is a float32 number


def scales_in_8_bits(absmax):
    mean = np.float32(absmax.mean(dtype=np.float64))
    centred = np.float32(absmax) - mean
    groups = [centred[i : i + 256] for i in range(0, len(centred), 256)]
    steps = np.float32([np.abs(group).max() for group in groups]) / np.float32(127)
    step = np.repeat(np.where(steps == 0, np.float32(1), steps), 256)[: len(centred)]
    codes = np.clip(np.rint(centred / step), -127, 127)
    return mean, steps, codes, np.maximum(mean + step * np.float32(codes), np.float32(0))


def nf4(settings, t):
    weight = t["weight"]
    blocks = weight.reshape(-1, settings["block_size"])
    absmax = np.abs(blocks).max(axis=1)
    points = code_points()
    midpoints = ((points[1:] + points[:-1]) / 2).astype(weight.dtype)
    shares = blocks / np.where(absmax == 0, 1, absmax)[:, None].astype(weight.dtype)
    codes = (midpoints < shares[:, :, None]).sum(axis=-1).ravel()
    outputs = {"absmax": absmax, "codes": codes, "packed": codes[::2] * 16 + codes[1::2]}
    scales = absmax
    if settings["double"]:
        outputs["mean"], outputs["steps"], outputs["scale_codes"], scales = scales_in_8_bits(absmax)
    each = np.repeat(scales.astype(weight.dtype), settings["block_size"])
    outputs |= {"scales": scales, "dequantised": (points[codes].astype(weight.dtype) * each).reshape(weight.shape)}
    return outputs
