"""SPEC.md's operations as a program, in their plainest form: nothing here is fast, and no code is shared with the rest
of the package. `mistakes.py` changes single lines of it.
"""

import math

import numpy as np

GELU_SCALE, GELU_CUBIC = math.sqrt(2.0 / math.pi), 0.044715


def rows(x):
    return x.reshape(-1, x.shape[-1])


# ---------------------------------------------------------------- linear


def linear(x, weight, bias):
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_back(dy, x, weight):
    dweight, dbias = rows(dy).T @ rows(x), rows(dy).sum(axis=0)
    return {"x": dy @ weight, "weight": dweight, "bias": dbias}


# ---------------------------------------------------------------- layer norm, GELU, softmax


def layer_norm(x, weight, bias, eps):
    """(y, cache)."""
    mean = x.mean(axis=-1, keepdims=True)
    centred = x - mean
    variance = (centred**2).sum(axis=-1, keepdims=True) / x.shape[-1]
    inv_std = 1.0 / np.sqrt(variance + eps)
    x_hat = centred * inv_std
    return x_hat * weight + bias, (x, x_hat, inv_std)


def layer_norm_back(dy, weight, cache):
    x, x_hat, inv_std = cache
    d = dy * weight
    through_mean = d.mean(axis=-1, keepdims=True)
    through_variance = x_hat * (d * x_hat).mean(axis=-1, keepdims=True)
    dx = (d - through_mean - through_variance) * inv_std
    return {"bias": rows(dy).sum(axis=0), "weight": rows(dy * x_hat).sum(axis=0), "x": dx}


def gelu(x):
    """(y, slope)."""
    g = 0.5 * (1.0 + np.tanh(GELU_SCALE * (x + GELU_CUBIC * x**3)))
    y = x * g
    slope = g + 2.0 * y * (1.0 - g) * GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x**2)
    return y, slope


def below_max(x, axis=-1):
    return x - x.max(axis=axis, keepdims=True)


def softmax(x, axis=-1):
    e = np.exp(below_max(x, axis))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_back(dp, p):
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


# ---------------------------------------------------------------- attention


def split(x, n_heads):
    """(B, T, C) -> (B, H, T, D)."""
    B, T, C = x.shape
    return x.reshape(B, T, n_heads, C // n_heads).transpose(0, 2, 1, 3)


def join(x):
    B, H, T, D = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * D)


def attention(q, k, v, n_heads, positions):
    """(scores, probs, context); positions (B, Tq) or None."""
    Tq, Tk, D = q.shape[1], k.shape[1], q.shape[-1] // n_heads
    query_at = np.arange(Tq) + Tk - Tq if positions is None else positions[:, None]
    seen = np.arange(Tk) <= query_at[..., None]
    scores = split(q, n_heads) @ split(k, n_heads).swapaxes(-1, -2) * (1.0 / math.sqrt(D))
    scores = np.where(seen, scores, -np.inf).astype(q.dtype)
    probs = softmax(scores)
    return scores, probs, join(probs @ split(v, n_heads))


def attention_back(dcontext, q, k, v, probs, n_heads):
    scale = 1.0 / math.sqrt(q.shape[-1] // n_heads)
    q, k, v, d = (split(x, n_heads) for x in (q, k, v, dcontext))
    dv = probs.swapaxes(-1, -2) @ d
    dprobs = d @ v.swapaxes(-1, -2)
    dscores = softmax_back(dprobs, probs)
    dq, dk = dscores @ k * scale, dscores.swapaxes(-1, -2) @ q * scale
    return {"v": join(dv), "probs": dprobs, "scores": dscores, "q": join(dq), "k": join(dk)}


# ---------------------------------------------------------------- embedding, cross-entropy, dropout


def embedding_back(dy, ids, table):
    dtable = np.zeros_like(table)
    np.add.at(dtable, ids, dy)
    return dtable


def cross_entropy(logits, targets, ignored, dloss):
    """(loss, dlogits)."""
    flat, t = rows(logits), targets.ravel()
    real = t != ignored
    N, picked = real.sum(), (np.arange(len(t)), np.where(real, t, 0))
    shifted = below_max(flat)
    e = np.exp(shifted)
    losses = np.log(e.sum(axis=-1)) - shifted[picked]
    p = e / e.sum(axis=-1, keepdims=True)
    p[picked] -= 1.0
    dlogits = np.where(real[:, None], p, 0.0) * dloss / N
    return losses[real].sum() / N, dlogits.reshape(logits.shape).astype(logits.dtype)


def drop(x, mask):
    return x if mask is None else x * mask


def drop_back(dy, mask):
    return drop(dy, mask)


# ---------------------------------------------------------------- LoRA, DoRA


def scaling(r, alpha, rslora):
    return alpha / math.sqrt(r) if rslora else alpha / r


def lora(x, weight, bias, A, B, s, mask):
    """(y, su)."""
    dropped = drop(x, mask)
    su = s * (dropped @ A.T)
    return linear(x, weight, bias) + su @ B.T, su


def lora_back(dy, x, weight, A, B, s, mask, su):
    grads = linear_back(dy, x, weight)
    du = s * (dy @ B)
    dA, dB = rows(du).T @ rows(drop(x, mask)), rows(dy).T @ rows(su)
    through = drop_back(du @ A, mask)
    return {**grads, "x": grads["x"] + through, "lora_A": dA, "lora_B": dB}


def lora_delta(weight, A, B, s):
    return s * (B @ A)


def dora(x, weight, bias, A, B, m, s, mask):
    """(y, cache)."""
    V = weight + s * (B @ A)
    norm = np.linalg.norm(V, axis=1)
    dropped = drop(x, mask)
    h = dropped @ V.T
    y = m / norm * h
    if mask is not None:
        y = y + (x - dropped) @ weight.T
    return y + bias, (V, norm, h, s * (dropped @ A.T))


def dora_back(dy, x, weight, A, B, m, s, mask, cache, norm_gradient=False):
    V, norm, h, su = cache
    dropped, a = drop(x, mask), rows(dy * h).sum(axis=0)
    dh = m / norm * dy
    dx = drop_back(dh @ V, mask)
    if mask is not None:
        dx = dx + dy @ weight - drop_back(dy @ weight, mask)
    grads = {
        "x": dx,
        "bias": rows(dy).sum(axis=0),
        "lora_magnitude_vector": a / norm,
        "weight": rows(dh).T @ rows(dropped) + rows(dy).T @ rows(x - dropped),
        "lora_B": rows(dh).T @ rows(su),
        "lora_A": rows(s * (dh @ B)).T @ rows(dropped),
    }
    if norm_gradient:
        dV = -(m * a / norm**3)[:, None] * V
        grads["weight"] = grads["weight"] + dV
        grads["lora_B"] = grads["lora_B"] + s * (dV @ A.T)
        grads["lora_A"] = grads["lora_A"] + s * (B.T @ dV)
    return grads


def dora_delta(weight, A, B, m, s):
    V = weight + s * (B @ A)
    return (m / np.linalg.norm(V, axis=1))[:, None] * V - weight


# ---------------------------------------------------------------- whole cases


def prefixed(grads):
    return {f"grad.{name}": grad for name, grad in grads.items()}


def linear_case(settings, t):
    grads = linear_back(t["grad.y"], t["x"], t["weight"])
    return {"y": linear(t["x"], t["weight"], t.get("bias")), **prefixed(grads)}


def layer_norm_case(settings, t):
    y, cache = layer_norm(t["x"], t["weight"], t["bias"], settings["eps"])
    grads = layer_norm_back(t["grad.y"], t["weight"], cache)
    return {"inv_std": cache[2][..., 0], "x_hat": cache[1], "y": y, **prefixed(grads)}


def gelu_case(settings, t):
    y, slope = gelu(t["x"])
    return {"y": y, "slope": slope, "grad.x": t["grad.y"] * slope}


def softmax_case(settings, t):
    probs = softmax(t["x"])
    return {"probs": probs, "grad.x": softmax_back(t["grad.probs"], probs)}


def attention_case(settings, t):
    q, k, v, n_heads = t["q"], t["k"], t["v"], settings["n_heads"]
    scores, probs, context = attention(q, k, v, n_heads, t.get("positions"))
    grads = attention_back(t["grad.context"], q, k, v, probs, n_heads)
    return {"scores": scores, "probs": probs, "context": context, **prefixed(grads)}


def embedding_case(settings, t):
    return {"y": t["weight"][t["ids"]], "grad.weight": embedding_back(t["grad.y"], t["ids"], t["weight"])}


def cross_entropy_case(settings, t):
    loss, dlogits = cross_entropy(t["logits"], t["targets"], settings["ignore_index"], settings["grad_loss"])
    return {"loss": loss, "grad.logits": dlogits}


def dropout_case(settings, t):
    return {"y": drop(t["x"], t["mask"]), "grad.x": drop_back(t["grad.y"], t["mask"])}


def lora_case(settings, t):
    s = scaling(settings["r"], settings["alpha"], settings["rslora"])
    A, B, mask = t["lora_A"], t["lora_B"], t.get("mask")
    y, su = lora(t["x"], t["weight"], t["bias"], A, B, s, mask)
    grads, delta = lora_back(t["grad.y"], t["x"], t["weight"], A, B, s, mask, su), lora_delta(t["weight"], A, B, s)
    return {"su": su, "y": y, **prefixed(grads), "delta": delta, "merged": t["weight"] + delta}


def dora_case(settings, t):
    s = scaling(settings["r"], settings["alpha"], settings["rslora"])
    weights, mask = [t[name] for name in ("lora_A", "lora_B", "lora_magnitude_vector")], t.get("mask")
    y, cache = dora(t["x"], t["weight"], t["bias"], *weights, s, mask)
    grads = dora_back(t["grad.y"], t["x"], t["weight"], *weights, s, mask, cache, settings["norm_gradient"])
    (_, norm, h, su), delta = cache, dora_delta(t["weight"], *weights, s)
    return {"norm": norm, "h": h, "su": su, "y": y, **prefixed(grads), "delta": delta, "merged": t["weight"] + delta}
