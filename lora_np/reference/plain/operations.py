"""SPEC.md's operations as a program, in their plainest form, with room for mistakes.

The checker uses it to recognise what a port has done: it makes each of the mistakes in `mistakes.py`, one at a time,
and looks which one gives the port's numbers. So beside each formula stand those that get taken for it. With `wrong` =
None it computes what the package does, in other words: nothing here is fast, and no code is shared.

Every function takes `wrong`, the name of one mistake or None, last.
"""

import math

import numpy as np

GELU_SCALE, GELU_CUBIC = math.sqrt(2.0 / math.pi), 0.044715


def rows(x):
    return x.reshape(-1, x.shape[-1])


def reread(matrix):
    """What a matrix becomes whose bytes are read with the axes exchanged: its own shape, other places."""
    return matrix.reshape(matrix.shape[::-1]).T


# ---------------------------------------------------------------- linear


def linear(x, weight, bias, wrong):
    if wrong == "weight transposed":
        weight = reread(weight)
    y = x @ weight.T
    return y if bias is None or wrong == "bias left out" else y + bias


def linear_back(dy, x, weight, wrong):
    """(dx, dweight, dbias)."""
    if wrong in ("weight transposed", "weight transposed going back"):
        weight = reread(weight)
    N = len(rows(dy))
    dweight, dbias = rows(dy).T @ rows(x), rows(dy).sum(axis=0)
    if wrong == "weight gradient averaged over rows":
        dweight = dweight / N
    if wrong == "weight gradient transposed":
        dweight = reread(dweight)
    if wrong == "bias gradient averaged over rows":
        dbias = dbias / N
    if wrong == "weight gradient with the sign reversed":
        dweight = -dweight
    return dy @ weight, dweight, dbias


# ---------------------------------------------------------------- layer norm, GELU, softmax


def layer_norm(x, weight, bias, eps, wrong):
    """(y, x_hat, inv_std)."""
    C = x.shape[-1]
    mean = x.mean(axis=-1, keepdims=True)
    centred = x - mean
    variance = (centred**2).sum(axis=-1, keepdims=True) / (C - 1 if wrong == "unbiased variance" else C)
    if wrong == "variance as a difference of means":
        variance = (x**2).mean(axis=-1, keepdims=True) - mean**2
    eps = {"layer norm without epsilon": 0.0, "epsilon of 1e-6": 1e-6, "epsilon of 1e-12": 1e-12}.get(wrong, eps)
    if wrong == "layer norm's epsilon written into the code":
        eps = 1e-5
    inv_std = 1.0 / np.sqrt(variance + eps)
    if wrong == "layer norm's epsilon outside the root":
        inv_std = 1.0 / (np.sqrt(variance) + eps)
    if wrong == "mean not taken off":
        centred = x
    x_hat = centred * inv_std
    y = x_hat * (1.0 if wrong == "layer norm's weight left out" else weight)
    return y + (0.0 if wrong == "layer norm's bias left out" else bias), x_hat, inv_std


def layer_norm_back(dy, x, weight, x_hat, inv_std, wrong):
    """(dx, dweight, dbias)."""
    d = dy * (1.0 if wrong == "layer norm's weight left out going back" else weight)
    through_mean = d.mean(axis=-1, keepdims=True)
    through_variance = x_hat * (d * x_hat).mean(axis=-1, keepdims=True)
    if wrong == "layer norm's term through the mean":
        through_mean = 0.0
    if wrong == "layer norm's term through the variance":
        through_variance = 0.0
    dx = (d - through_mean - through_variance) * inv_std
    by = x if wrong == "layer norm's weight gradient from x" else x_hat
    return dx, rows(dy * by).sum(axis=0), rows(dy).sum(axis=0)


def gelu(x, wrong):
    """(y, slope)."""
    if wrong == "erf GELU":
        phi = 0.5 * (1.0 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2.0)))
        return (x * phi).astype(x.dtype), (phi + x * np.exp(-(x**2) / 2) / math.sqrt(2.0 * math.pi)).astype(x.dtype)
    if wrong == "sigmoid GELU":
        s = 1.0 / (1.0 + np.exp(-1.702 * x))
        return x * s, s + 1.702 * x * s * (1.0 - s)
    if wrong == "ReLU for GELU":
        return np.maximum(x, 0.0), (x > 0).astype(x.dtype)
    cubic = 0.0 if wrong == "GELU without the cubic term" else GELU_CUBIC
    g = 0.5 * (1.0 + np.tanh(GELU_SCALE * (x + cubic * x**3)))
    y = x * g
    slope = g + 2.0 * y * (1.0 - g) * GELU_SCALE * (1.0 + 3.0 * cubic * x**2)
    if wrong == "GELU's slope without its second term":
        slope = g
    if wrong == "GELU's slope without the cubic term":
        slope = g + 2.0 * y * (1.0 - g) * GELU_SCALE
    return y, slope


def softmax(x, wrong, axis=-1):
    if wrong == "softmax without the maximum":
        e = np.exp(x)
    else:
        e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_back(dp, p, wrong):
    if wrong == "softmax gradient without the sum":
        return p * dp
    if wrong == "softmax gradient as a sigmoid's":
        return p * (1.0 - p) * dp
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


# ---------------------------------------------------------------- attention


def split(x, n_heads, wrong):
    """(B, T, C) -> (B, H, T, D)."""
    B, T, C = x.shape
    if wrong == "heads interleaved":
        return x.reshape(B, T, C // n_heads, n_heads).transpose(0, 3, 1, 2)
    return x.reshape(B, T, n_heads, C // n_heads).transpose(0, 2, 1, 3)


def join(x, wrong):
    B, H, T, D = x.shape
    if wrong == "heads interleaved":
        return x.transpose(0, 2, 3, 1).reshape(B, T, H * D)
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * D)


def attention(q, k, v, n_heads, positions, wrong):
    """(scores, probs, context); positions (B, Tq) or None."""
    C, D = q.shape[-1], q.shape[-1] // n_heads
    scale = {"scores not scaled": 1.0, "scores over D": 1.0 / D, "scores over the root of C": 1.0 / math.sqrt(C)}
    scores = split(q, n_heads, wrong) @ split(k, n_heads, wrong).swapaxes(-1, -2)
    scores = scores * scale.get(wrong, 1.0 / math.sqrt(D))
    Tq, Tk = scores.shape[-2:]
    stands = np.arange(Tq) + Tk - Tq if positions is None else positions[:, None]
    if wrong == "mask's corner at the first key":
        stands = np.arange(Tq)
    if wrong == "positions of the queries ignored":
        stands = np.arange(Tq) + Tk - Tq
    seen = np.arange(Tk) <= stands[..., None]
    if wrong == "a token sees the next one":
        seen = np.arange(Tk) <= stands[..., None] + 1
    if wrong == "no causal mask":
        seen = np.ones_like(seen)
    if wrong == "mask after the softmax":
        return scores, (p := softmax(scores, wrong) * seen), join(p @ split(v, n_heads, wrong), wrong)
    scores = np.where(seen, scores, -np.inf).astype(q.dtype)
    probs = softmax(scores, wrong, -2 if wrong == "softmax over the queries" else -1)
    return scores, probs, join(probs @ split(v, n_heads, wrong), wrong)


def attention_back(dcontext, q, k, v, probs, n_heads, wrong):
    """(dv, dprobs, dscores, dq, dk)."""
    D = q.shape[-1] // n_heads
    scale = 1.0 if wrong in ("scores not scaled", "scores not scaled going back") else 1.0 / math.sqrt(D)
    q, k, v, d = (split(x, n_heads, wrong) for x in (q, k, v, dcontext))
    turned = probs if wrong == "probs not transposed in dv" else probs.swapaxes(-1, -2)
    dprobs = d @ v.swapaxes(-1, -2)
    dscores = softmax_back(dprobs, probs, wrong)
    dq, dk = dscores @ k * scale, dscores.swapaxes(-1, -2) @ q * scale
    if wrong == "scores not transposed in dk":
        dk = dscores @ q * scale
    return join(turned @ d, wrong), dprobs, dscores, join(dq, wrong), join(dk, wrong)


# ---------------------------------------------------------------- embedding, cross-entropy


def embedding_back(dy, ids, table, wrong):
    dtable = np.zeros_like(table)
    if wrong == "repeated ids count once":
        dtable[ids] = dy
    else:
        np.add.at(dtable, ids, dy)
    return dtable


def cross_entropy(logits, targets, ignored, dloss, wrong):
    """(loss, dlogits)."""
    if wrong == "targets shifted once more":
        targets = np.concatenate([targets[..., 1:], np.full_like(targets[..., :1], ignored)], axis=-1)
    flat, t = rows(logits), targets.ravel()
    real = t != ignored
    N = {"sum for the mean": 1, "mean over ignored targets too": len(t), "mean over the batch's rows": len(logits)}
    N = N.get(wrong, real.sum())
    picked = np.where(real, t, 0)
    shifted = flat - (0.0 if wrong == "softmax without the maximum" else flat.max(axis=-1, keepdims=True))
    e = np.exp(shifted)
    at = np.arange(len(t))
    losses = np.log(e.sum(axis=-1)) - shifted[at, picked]
    if wrong == "loss in bits":
        losses = losses / math.log(2.0)
    p = e / e.sum(axis=-1, keepdims=True)
    p[at, picked] -= 0.0 if wrong == "target's -1 left out" else 1.0
    p = np.where(real[:, None], p, 0.0)
    dloss = 1.0 if wrong == "loss's own gradient left out" else dloss
    dlogits = p * dloss / (1.0 if wrong == "sum for the mean going back" else N)
    loss = losses[real].sum() / (1 if wrong == "sum for the mean in the loss alone" else N)
    return loss, dlogits.reshape(logits.shape).astype(logits.dtype)


# ---------------------------------------------------------------- dropout, LoRA, DoRA


def drop(x, mask, wrong):
    if mask is None or wrong == "dropout left out":
        return x
    return x * ((mask > 0) if wrong == "dropout without 1/(1 - p)" else mask)


def drop_back(dy, mask, wrong):
    return dy if wrong == "dropout left out going back" else drop(dy, mask, wrong)


def scaling(r, alpha, rslora, wrong):
    s = alpha / math.sqrt(r) if rslora else alpha / r
    other = {"alpha for alpha/r": alpha, "no scale": 1.0, "1/r for alpha/r": 1.0 / r, "scale applied twice": s * s}
    if wrong == "alpha/r where rslora is set" and rslora:
        return alpha / r
    if wrong == "alpha/sqrt(r) where rslora is not set" and not rslora:
        return alpha / math.sqrt(r)
    return other.get(wrong, s)


def lora(x, weight, bias, A, B, s, mask, wrong):
    """(y, su)."""
    if wrong == "A transposed":
        A = reread(A)
    if wrong == "B transposed":
        B = reread(B)
    dropped = drop(x, mask, wrong)
    su = s * (dropped @ A.T)
    y = linear(dropped if wrong == "dropout on the base's input too" else x, weight, bias, wrong)
    return (y if wrong == "adapter left out" else y + su @ B.T), su


def lora_back(dy, x, weight, A, B, s, mask, su, wrong):
    """{"x": dx, "weight": …, "bias": …, "lora_B": …, "lora_A": …}."""
    dx, dweight, dbias = linear_back(dy, x, weight, wrong)
    if wrong == "A transposed":
        A = reread(A)
    if wrong == "B transposed":
        B = reread(B)
    du = (1.0 if wrong == "scale left out of dA" else s) * (dy @ B)
    dA = rows(du).T @ rows(x if wrong == "dropout left out of dA" else drop(x, mask, wrong))
    if wrong == "dA transposed":
        dA = reread(dA)
    dB = rows(dy).T @ rows(su / s if wrong == "scale left out of dB" else su)
    through = (du / s if wrong == "scale left out of dx" else du) @ A
    through = through if wrong == "adapter's part of dx not masked" else drop_back(through, mask, wrong)
    if wrong != "adapter's part of dx left out":
        dx = dx + through
    return {"x": dx, "weight": dweight, "bias": dbias, "lora_B": dB, "lora_A": dA}


def lora_delta(A, B, s, wrong):
    return (1.0 if wrong == "scale left out of the merge" else s) * (B @ A)


def dora(x, weight, bias, A, B, m, s, mask, wrong):
    """(y, V, norm, h, su)."""
    V = weight + s * (B @ A)
    norm = np.linalg.norm(weight if wrong == "norm of W for that of V" else V, axis=1)
    if wrong == "norms of columns":
        norm = np.resize(np.linalg.norm(V, axis=0), norm.shape)
    dropped = drop(x, mask, wrong)
    h = dropped @ V.T
    y = (1.0 if wrong == "magnitude left out" else m) / norm * h
    if mask is not None and wrong != "dropout on the base's input too":
        y = y + (x - dropped) @ weight.T
    return (y if bias is None else y + bias), V, norm, h, s * (dropped @ A.T)


def dora_back(dy, x, weight, A, B, m, s, mask, made, norm_gradient, wrong):
    V, norm, h, su = made
    dropped, a = drop(x, mask, wrong), rows(dy * h).sum(axis=0)
    dh = m / norm * dy
    dx = drop_back(dh @ V, mask, wrong)
    if mask is not None:
        dx = dx + dy @ weight - drop_back(dy @ weight, mask, wrong)
    grads = {
        "x": dx,
        "bias": rows(dy).sum(axis=0),
        "lora_magnitude_vector": a if wrong == "norm left out of dm" else a / norm,
        "weight": rows(dh).T @ rows(dropped) + rows(dy).T @ rows(x - dropped),
        "lora_B": rows(dh).T @ rows(su),
        "lora_A": rows(s * (dh @ B)).T @ rows(dropped),
    }
    if norm_gradient != (wrong == "gradient through DoRA's norm"):
        dV = -(m * a / norm**3)[:, None] * V
        grads["weight"] = grads["weight"] + dV
        grads["lora_B"] = grads["lora_B"] + s * (dV @ A.T)
        grads["lora_A"] = grads["lora_A"] + s * (B.T @ dV)
    return grads


def dora_delta(weight, A, B, m, s, wrong):
    V = weight + s * (B @ A)
    return (m / np.linalg.norm(V, axis=1))[:, None] * V - weight
