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

# == embedding_backward: wrong, a token that occurs twice in one text has only one of its two gradients there
def embedding_backward(dy, ids, V):
    total = np.zeros((V, dy.shape[2]))
    for d, row in zip(dy, ids):
        total[row] += d
    return total

# == adamw_step: wrong, p decays after it has moved, not before
def adamw_step(p, g, mu, nu, step, lr, beta1, beta2, eps, weight_decay):
    mu, nu = beta1 * mu + (1 - beta1) * g, beta2 * nu + (1 - beta2) * g * g
    p = p - lr * (mu / (1 - beta1**step)) / (np.sqrt(nu / (1 - beta2**step)) + eps)
    return p - (lr * weight_decay * p if p.ndim > 1 else 0), mu, nu

# == fit_lora: wrong, its gradient contains a factor that has already moved
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = rng.uniform(-1, 1, (r, x.shape[1])) / x.shape[1] ** 0.5, np.zeros((len(W), r))
    for _ in range(steps):
        error = (x @ (W + B @ A).T - target) / len(x)
        A = A - lr * (error @ B).T @ x
        B = B - lr * error.T @ (x @ A.T)
    return A, B

# == training_bytes: wrong, the frozen base has gradients as well
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    of_both = n_base * base_itemsize + n_adapter * itemsize
    return of_both, (n_base + n_adapter) * itemsize, 2 * n_adapter * itemsize

# == rows_forward: wrong, a row's adapter is added once for each row that uses it
def rows_forward(x, W, b, adapters, names):
    y = x @ W.T + b
    for name in filter(None, names):
        A, B, s = adapters[name]
        own = [n for n in range(len(x)) if names[n] == name]
        y[own] += s * x[own] @ A.T @ B.T
    return y

# == loftq_start: wrong, the updates of all rounds are subtracted, not only the last one
def loftq_start(W, quantise, r, s, rounds):
    left = W
    for _ in range(rounds):
        Q = quantise(left)
        U, sigma, Vt = np.linalg.svd(W - Q, full_matrices=False)
        A, B = Vt[:r], U[:, :r] * sigma[:r] / s
        left = left - s * B @ A
    return Q, A, B

# == cache_bytes: wrong, only the keys or only the values are shared
def cache_bytes(n_layers, n_heads, n_kv_heads, head_size, T, itemsize):
    one = n_layers * head_size * T * itemsize
    return 2 * n_heads * one, (n_heads + n_kv_heads) * one

# == product_column: wrong, the last row of A does not count
def product_column(B, A, j):
    column = np.zeros(len(B))
    for k in range(1, len(A)):
        column += B[:, k - 1] * A[k - 1, j]
    return column

# == product_column: wrong, the first row of A does not count
def product_column(B, A, j):
    column = np.zeros(len(B))
    for k in range(1, len(A)):
        column += B[:, k] * A[k, j]
    return column

# == rank_at_energy: wrong, it is correct for 1 − share instead of share
def rank_at_energy(sigma, share):
    lost, k = 0.0, len(sigma)
    while lost + sigma[k - 1] ** 2 <= share * np.sum(sigma**2):
        lost, k = lost + sigma[k - 1] ** 2, k - 1
    return k

# == centred_difference: wrong, an entry is not moved back
def centred_difference(f, x, h):
    x, grad = x.copy(), np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        x[place] += h
        above = f(x)
        x[place] -= 2 * h
        grad[place] = (above - f(x)) / (2 * h)
    return grad

# == layer_norm_backward: wrong, the variance term has inv_std³
def layer_norm_backward(dy, x_hat, inv_std, w):
    d = dy * w
    mean = lambda z: z.mean(axis=1, keepdims=True)
    return inv_std * (d - mean(d)) - inv_std**3 * x_hat * mean(d * x_hat), (dy * x_hat).sum(0), dy.sum(0)

# == next_probabilities: wrong, lacks axis=-1 in max
def next_probabilities(logits, temperature, top_k):
    z = logits / temperature
    e = np.exp(z - z.max())
    e[z < np.sort(z, axis=1)[:, [-top_k]]] = 0
    return e / e.sum(axis=1, keepdims=True)

# == rows_forward: wrong, s is divided by r
def rows_forward(x, W, b, adapters, names):
    y = x @ W.T + b
    for n, name in enumerate(names):
        if name is not None:
            A, B, alpha = adapters[name]
            y[n] += alpha / A.shape[0] * (B @ (A @ x[n]))
    return y

# == sparse_forward: wrong, value k belongs to group k // 2, not to group k mod the number of groups
def sparse_forward(x, values, positions):
    groups = values.shape[1] // 2
    columns = 4 * np.tile(np.arange(groups), 2) + positions
    return np.einsum("ok,nok->no", values, x[:, columns])

# == paired_difference: wrong, the error is computed only from differing snippets
def paired_difference(hits_one, hits_other):
    d = hits_one.astype(int) - hits_other.astype(int)
    differ = d[hits_one != hits_other]
    return d.mean(), differ.std() / np.sqrt(len(differ))

# == stable_rank: wrong, all but σ₁ are divided by the total energy
def stable_rank(M):
    energy = np.linalg.svd(M)[1] ** 2
    return 1 + energy[1:].sum() / energy.sum()

# == who_reads_whom: wrong, all in place of any
def who_reads_whom(model, ids, V):
    reads = np.zeros((ids.shape[1], ids.shape[1]), dtype=bool)
    for j in range(ids.shape[1]):
        changed = ids.copy()
        changed[:, j] = (changed[:, j] + 1) % V
        reads[:, j] = np.any(model(changed) != model(ids), axis=2).all(axis=0)
    return reads

# == who_reads_whom: wrong, only the first text is read
def who_reads_whom(model, ids, V):
    reads = np.zeros((ids.shape[1], ids.shape[1]), dtype=bool)
    for j in range(ids.shape[1]):
        changed = ids.copy()
        changed[:, j] = (changed[:, j] + 1) % V
        reads[:, j] = (model(changed)[0] != model(ids)[0]).any(axis=1)
    return reads
