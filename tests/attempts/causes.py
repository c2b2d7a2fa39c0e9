"""Attempts whose causes were once told wrongly or not at all: `# ==`, the exercise, and wrong, and words of the cause."""
# == lora_backward: wrong, it is the correct value times s
def lora_backward(dy, x, W, A, B, s):
    du = s * dy @ B  # which is right, like dx
    return dy @ W + du @ A, s * du.T @ x, s * dy.T @ (x @ A.T)

# == merging_pays_from: wrong, x Wᵀ is counted as well
def merging_pays_from(n_in, n_out, r):
    return n_out * r * n_in // (n_in * n_out + r * (n_in + n_out)) + 1

# == mix: wrong, the root or logarithm of a negative number
def mix(adapters, weights):
    roots = {name: np.sqrt(weights[name] * s) for name, (_, _, s) in adapters.items()}
    A = np.concatenate([roots[name] * A for name, (A, _, _) in adapters.items()])
    return A, np.concatenate([roots[name] * B for name, (_, B, _) in adapters.items()], axis=1)

# == best_weight: wrong, price multiplies new
def best_weight(new, old, price):
    a, b, _ = np.polyfit([0, 0.5, 1], price * new + old, 2)
    return -b / (2 * a)

# == prune_n_of_m: wrong, the n smallest are removed
def prune_n_of_m(W, n, m):
    groups = W.reshape(len(W), -1, m).copy()
    np.put_along_axis(groups, np.abs(groups).argsort(axis=-1)[..., :n], 0.0, axis=-1)
    return groups.reshape(W.shape)

# == chance_similarity: wrong, this is the smaller one of i/n and j/n
def chance_similarity(n, i, j):
    return min(i, j) / n

# == centred_difference: wrong, the divisor of grad[place] is divided by h, not multiplied
def centred_difference(f, x, h):
    steps = h * np.eye(x.size).reshape(-1, *x.shape)
    return np.reshape([(f(x + step) - f(x - step)) / 2 * h for step in steps], x.shape)

# == cache_bytes: wrong, it is full divided by n_kv_heads
def cache_bytes(n_layers, n_heads, n_kv_heads, head_size, T, itemsize):
    full = 2 * n_layers * n_heads * head_size * T * itemsize
    return full, full // n_kv_heads

# == layer_flops: wrong, lora_backward lacks the term (2 * N * n_in * n_out)
def layer_flops(N, n_in, n_out, r):
    wide, thin = 2 * N * n_in * n_out, 2 * N * r * (n_in + n_out)
    return wide, 2 * wide, wide + thin, 2 * thin
