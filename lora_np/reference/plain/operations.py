"""The operations of SPEC.md, tiers 1 and 4, each with its backward pass, in the specification's notation.

Arrays have the specification's names, with `_` instead of `.`: grad_y is `grad.y`. Where a gradient is a sum over rows,
the code forms all its terms, with `products` or `rows`, before it sums them.
"""

import math

import numpy as np


def rows(x):
    """Flatten all leading axes to one: (N, C)."""
    return x.reshape(-1, x.shape[-1])


def products(y, x):
    """yᵀ x for each row, (N, out, in)."""
    return rows(y)[:, :, None] * rows(x)[:, None, :]


def one_hot(ids, n):
    return ids[..., None] == np.arange(n)


def linear(x, weight, bias):
    y = x @ weight.T
    if bias is not None:
        y = y + bias
    return y


def linear_backward(grad_y, x, weight):
    grad_x = grad_y @ weight
    grad_weight = products(grad_y, x).sum(axis=0)
    grad_bias = rows(grad_y).sum(axis=0)
    return grad_x, grad_weight, grad_bias


def layer_norm(x, weight, bias, eps):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    inv_std = 1.0 / np.sqrt(variance + eps)
    x_hat = (x - mean) * inv_std
    y = x_hat * weight + bias
    return inv_std, x_hat, y


def layer_norm_backward(grad_y, x, weight, x_hat, inv_std):
    d = grad_y * weight
    grad_x = (d - d.mean(axis=-1, keepdims=True) - x_hat * (d * x_hat).mean(axis=-1, keepdims=True)) * inv_std
    grad_weight = rows(grad_y * x_hat).sum(axis=0)
    grad_bias = rows(grad_y).sum(axis=0)
    return grad_bias, grad_weight, grad_x


def rms_norm(x, weight, eps):
    inv_rms = 1.0 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    x_hat = x * inv_rms
    y = x_hat * weight
    return inv_rms, x_hat, y


def rms_norm_backward(grad_y, x, weight, x_hat, inv_rms):
    d = grad_y * weight
    grad_x = (d - x_hat * (d * x_hat).mean(axis=-1, keepdims=True)) * inv_rms
    grad_weight = rows(grad_y * x_hat).sum(axis=0)
    return grad_weight, grad_x


def gelu(x):
    root, cubic = math.sqrt(2.0 / math.pi), 0.044715
    u = root * (x + cubic * x**3)
    g = 0.5 * (1.0 + np.tanh(u))
    y = x * g
    du = root * (1.0 + 3.0 * cubic * x**2)
    slope = g + 2.0 * y * (1.0 - g) * du
    return y, slope


def gelu_backward(grad_y, x, slope):
    grad_x = grad_y * slope
    return grad_x


def gelu_erf(x):
    share = 0.5 * (1.0 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2.0)))
    density = np.exp(-(x**2) / 2.0) / math.sqrt(2.0 * math.pi)
    y = x * share
    slope = share + x * density
    return y, slope


def gelu_erf_backward(grad_y, x, slope):
    return gelu_backward(grad_y, x, slope)


def sigmoid(a):
    return 0.5 * (1.0 + np.tanh(0.5 * a))


def swiglu(gate, up):
    y = gate * sigmoid(gate) * up
    return y


def swiglu_backward(grad_y, gate, up):
    sigma = sigmoid(gate)
    grad_gate = grad_y * up * (sigma + gate * sigma * (1.0 - sigma))
    grad_up = grad_y * gate * sigma
    return grad_up, grad_gate


def softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    probs = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probs


def softmax_backward(grad_probs, probs):
    grad_x = probs * (grad_probs - (grad_probs * probs).sum(axis=-1, keepdims=True))
    return grad_x


def split_heads(x, D):
    """(B, T, H · D) -> (B, H, T, D)."""
    return x.reshape(*x.shape[:2], -1, D).transpose(0, 2, 1, 3)


def join_heads(x):
    """(B, H, T, D) -> (B, T, H · D)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def in_groups(x, K):
    """Group the query heads by key head: (B, H, T, D) -> (B, K, H/K, T, D)."""
    return x.reshape(x.shape[0], K, -1, *x.shape[2:])


def attention(q, k, v, n_heads, positions):
    D = q.shape[-1] // n_heads
    queries, keys, values = split_heads(q, D), split_heads(k, D), split_heads(v, D)
    group = n_heads // keys.shape[1]
    keys, values = np.repeat(keys, group, axis=1), np.repeat(values, group, axis=1)
    products_of_heads = queries @ keys.transpose(0, 1, 3, 2) / math.sqrt(D)
    if positions is None:
        positions = np.arange(k.shape[1] - q.shape[1], k.shape[1])[None]
    allowed = np.arange(k.shape[1]) <= positions[:, None, :, None]
    scores = np.where(allowed, products_of_heads, -np.inf)
    probs = softmax(scores)
    context = join_heads(probs @ values)
    return scores, probs, context


def attention_backward(grad_context, q, k, v, probs, n_heads):
    D = q.shape[-1] // n_heads
    queries, keys, values, above = split_heads(q, D), split_heads(k, D), split_heads(v, D), split_heads(grad_context, D)
    K = keys.shape[1]
    keys, values = np.repeat(keys, n_heads // K, axis=1), np.repeat(values, n_heads // K, axis=1)
    grad_probs = above @ values.transpose(0, 1, 3, 2)
    grad_scores = softmax_backward(grad_probs, probs)
    grad_v = join_heads(in_groups(probs.transpose(0, 1, 3, 2) @ above, K).sum(axis=2))
    grad_q = join_heads(grad_scores @ keys / math.sqrt(D))
    grad_k = join_heads(in_groups(grad_scores.transpose(0, 1, 3, 2) @ queries, K).sum(axis=2) / math.sqrt(D))
    return grad_v, grad_probs, grad_scores, grad_q, grad_k


def rope_tables(positions, D, theta, divisors=1.0):
    speeds = theta ** (-2.0 * np.arange(D // 2) / D) / divisors
    angles = positions[..., None] * speeds
    return np.cos(angles), np.sin(angles)


def rope(x, cos, sin):
    points = x.reshape(*x.shape[:2], -1, 2, cos.shape[-1])
    first, second = points[..., 0, :], points[..., 1, :]
    cos, sin = cos[:, :, None, :], sin[:, :, None, :]
    y_first = first * cos - second * sin
    y_second = second * cos + first * sin
    return np.stack([y_first, y_second], axis=-2).reshape(x.shape)


def rope_backward(grad_y, cos, sin):
    grad_x = rope(grad_y, cos, -sin)
    return grad_x


def embedding(ids, weight):
    y = weight[ids]
    return y


def embedding_backward(grad_y, ids, weight):
    grad_weight = products(one_hot(ids, len(weight)), grad_y).sum(axis=0)
    return grad_weight


def mean_pool_shares(lengths, T, dtype):
    shares = (np.arange(T) < lengths[:, None]) / lengths[:, None]
    return shares.astype(dtype)[:, :, None]


def mean_pool(x, lengths):
    y = (mean_pool_shares(lengths, x.shape[1], x.dtype) * x).sum(axis=1)
    return y


def mean_pool_backward(grad_y, x, lengths):
    grad_x = mean_pool_shares(lengths, x.shape[1], x.dtype) * grad_y[:, None]
    return grad_x


def cross_entropy(logits, targets, ignore_index):
    real = targets != ignore_index
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=-1))
    chosen = (shifted * one_hot(targets, logits.shape[-1])).sum(axis=-1)
    loss = ((log_sums - chosen) * real).sum() / max(1, real.sum())
    return loss


def cross_entropy_backward(grad_loss, logits, targets, ignore_index):
    real = targets != ignore_index
    difference = softmax(logits) - one_hot(targets, logits.shape[-1])
    grad_logits = grad_loss * difference * real[..., None] / max(1, real.sum())
    return grad_logits


def dropout(x, mask):
    if mask is not None:
        x = x * mask
    return x


def dropout_backward(grad_y, mask):
    if mask is not None:
        grad_y = grad_y * mask
    return grad_y


def linear_cross_entropy(x, weight, targets, grad_loss, ignore_index, chunk):
    """The loss of the logits x Wᵀ and its gradients, computed in chunks of the rows that have a target."""
    at = np.flatnonzero(targets != ignore_index)
    loss, grad_x, grad_weight = 0.0, np.zeros_like(rows(x)), np.zeros_like(weight)
    for i in range(0, len(at), chunk):
        some = at[i : i + chunk]
        share = len(some) / len(at)
        logits = linear(rows(x)[some], weight, None)
        piece = targets.ravel()[some]
        loss = loss + share * cross_entropy(logits, piece, ignore_index)
        grad_logits = cross_entropy_backward(share * grad_loss, logits, piece, ignore_index)
        grad_rows, grad_piece, _ = linear_backward(grad_logits, rows(x)[some], weight)
        grad_x[some] = grad_rows
        grad_weight = grad_weight + grad_piece
    return loss, grad_x.reshape(x.shape), grad_weight


def token_log_probs(x, weight, targets, ignore_index):
    logits = linear(x, weight, None)
    largest = logits.max(axis=-1, keepdims=True)
    log_sums = largest + np.log(np.exp(logits - largest).sum(axis=-1, keepdims=True))
    real = targets != ignore_index
    chosen = np.take_along_axis(logits, np.where(real, targets, 0)[..., None], axis=-1)
    return np.where(real, (chosen - log_sums)[..., 0], 0.0)


def token_log_probs_backward(grad_log_probs, x, weight, targets, ignore_index):
    real = targets != ignore_index
    hits = np.where(real, targets, -1)[..., None] == np.arange(len(weight))
    grad_logits = np.where(real, grad_log_probs, 0.0)[..., None] * (hits - softmax(linear(x, weight, None)))
    grad_x, grad_weight, _ = linear_backward(grad_logits, x, weight)
    return grad_weight, grad_x


def scale(r, alpha, rslora):
    return alpha / math.sqrt(r) if rslora else alpha / r


def lora(x, weight, bias, lora_A, lora_B, s, mask):
    dropped = dropout(x, mask)
    su = s * (dropped @ lora_A.T)
    y = linear(x, weight, bias) + su @ lora_B.T
    return y, su


def lora_backward(grad_y, x, weight, lora_A, lora_B, s, mask, su):
    dropped = dropout(x, mask)
    grad_x, grad_weight, grad_bias = linear_backward(grad_y, x, weight)
    inner = s * (grad_y @ lora_B)
    grad_B = products(grad_y, su).sum(axis=0)
    grad_A = products(inner, dropped).sum(axis=0)
    grad_x = grad_x + dropout_backward(inner @ lora_A, mask)
    return grad_x, grad_weight, grad_bias, grad_B, grad_A


def lora_delta(weight, lora_A, lora_B, s):
    delta = s * (lora_B @ lora_A)
    return delta


def direction(weight, lora_A, lora_B, s):
    """DoRA's direction V = W + s B A, and the norm of each row of V."""
    V = weight + s * (lora_B @ lora_A)
    norm = np.sqrt((V**2).sum(axis=1))
    return V, norm


def dora(x, weight, bias, lora_A, lora_B, m, s, mask):
    V, norm = direction(weight, lora_A, lora_B, s)
    dropped = dropout(x, mask)
    h = dropped @ V.T
    su = s * (dropped @ lora_A.T)
    y = m / norm * h + linear(x - dropped, weight, bias)
    return y, norm, h, su


def dora_backward(grad_y, x, weight, lora_A, lora_B, m, s, mask, h, su, y, norm_gradient):
    V, norm = direction(weight, lora_A, lora_B, s)
    dropped = dropout(x, mask)
    a = rows(grad_y * h).sum(axis=0)
    grad_m = a / norm
    dh = m / norm * grad_y
    dV = np.zeros_like(V)
    if norm_gradient:
        dV = -(m * a / norm**3)[:, None] * V
    grad_weight = products(dh, dropped).sum(axis=0) + products(grad_y, x - dropped).sum(axis=0) + dV
    grad_bias = rows(grad_y).sum(axis=0)
    grad_B = products(dh, su).sum(axis=0) + s * (dV @ lora_A.T)
    grad_A = products(s * (dh @ lora_B), dropped).sum(axis=0) + s * (lora_B.T @ dV)
    grad_x = dropout_backward(dh @ V - grad_y @ weight, mask) + grad_y @ weight
    return grad_x, grad_weight, grad_bias, grad_m, grad_B, grad_A


def dora_delta(weight, lora_A, lora_B, m, s):
    V, norm = direction(weight, lora_A, lora_B, s)
    delta = (m / norm)[:, None] * V - weight
    return delta


def qalora(x, weight, bias, lora_A, lora_B, s, mask):
    L = lora_A.shape[1]
    dropped = dropout(x, mask)
    pooled = dropped.reshape(*x.shape[:-1], L, -1).mean(axis=-1)
    su = s * L * (pooled @ lora_A.T)
    y = linear(x, weight, bias) + su @ lora_B.T
    return y, pooled, su


def qalora_backward(grad_y, x, weight, lora_A, lora_B, s, mask, pooled, su):
    L = lora_A.shape[1]
    size = x.shape[-1] // L
    grad_x, _, grad_bias = linear_backward(grad_y, x, weight)
    inner = s * L * (grad_y @ lora_B)
    grad_B = products(grad_y, su).sum(axis=0)
    grad_A = products(inner, pooled).sum(axis=0)
    grad_x = grad_x + dropout_backward(np.repeat(inner @ lora_A, size, axis=-1) / size, mask)
    return grad_x, grad_bias, grad_B, grad_A


def qalora_delta(weight, lora_A, lora_B, s):
    L = lora_A.shape[1]
    size = weight.shape[1] // L
    delta = np.repeat(s * L / size * (lora_B @ lora_A), size, axis=1)
    return delta


def sample(logits, ids, uniform, temperature, top_k, top_p, repetition_penalty):
    """The probabilities of the next token, and the token sampled with each uniform number."""
    penalised = np.where(logits > 0, logits / repetition_penalty, logits * repetition_penalty)
    x = np.where(one_hot(ids, logits.shape[-1]).any(axis=1), penalised, logits)
    x = x / temperature
    if top_k is not None:
        x = np.where(x < np.sort(x, axis=-1)[:, -top_k][:, None], -np.inf, x)
    if top_p is not None:
        p = softmax(x)
        before = (p[:, None, :] * (p[:, None, :] > p[:, :, None])).sum(axis=-1)
        x = np.where(before >= top_p, -np.inf, x)
    probs = softmax(x)
    sums = np.cumsum(probs, axis=-1)
    tokens = (sums <= uniform[:, None] * sums[:, -1:]).sum(axis=-1)
    return probs, tokens
