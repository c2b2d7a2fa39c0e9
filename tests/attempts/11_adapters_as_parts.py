"""Attempts at exercise set 11: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == next_probabilities: right, row by row, the k places by argpartition
def next_probabilities(logits, temperature, top_k):
    probs = np.zeros_like(logits)
    for row, z in zip(probs, logits):
        best = np.argpartition(-z, top_k - 1)[:top_k]
        weights = np.exp((z[best] - z[best].max()) / temperature)
        row[best] = weights / weights.sum()
    return probs

# == next_probabilities: wrong, z has 0 in place of −∞
def next_probabilities(logits, temperature, top_k):
    limit = np.sort(logits, axis=-1)[:, [-top_k]]
    z = np.where(logits < limit, 0.0, logits) / temperature
    exp = np.exp(z - z.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)

# == nucleus: right, by the smallest probability that stays
def nucleus(probs, p):
    falling = -np.sort(-probs)
    last = np.argmax(np.cumsum(falling, axis=-1) >= p, axis=-1)
    smallest = falling[np.arange(len(probs)), last]
    kept = np.where(probs >= smallest[:, None], probs, 0)
    return np.einsum("bv,b->bv", kept, 1 / kept.sum(-1))

# == nucleus: wrong, it is sorted in descending order, but the correct output is not
def nucleus(probs, p):
    falling = np.sort(probs, axis=-1)[:, ::-1]
    kept = falling * (np.cumsum(falling, axis=-1) - falling < p)
    return kept / kept.sum(axis=-1, keepdims=True)

# == rows_forward: right, every adapter on every row, times 0 or 1
def rows_forward(x, W, b, adapters, names):
    y = np.einsum("ni,oi->no", x, W) + b
    for name, (A, B, s) in adapters.items():
        mine = np.array([float(other == name) for other in names])
        y = y + np.einsum("n,ni,ri,or->no", s * mine, x, A, B)
    return y

# == rows_forward: wrong, rows includes each (n, its_name) regardless of its_name == name
def rows_forward(x, W, b, adapters, names):
    y = x @ W.T + b
    for name in adapters:
        A, B, s = adapters[name]
        y += s * (x @ A.T) @ B.T
    return y

# == mix: right, from the update by singular values
def mix(adapters, weights):
    delta = sum(weights[name] * s * B @ A for name, (A, B, s) in adapters.items())
    R = min(sum(len(A) for A, _, _ in adapters.values()), *delta.shape)
    U, sigma, Vt = np.linalg.svd(delta, full_matrices=False)
    return sigma[:R, None] * Vt[:R], U[:, :R]

# == mix: wrong, B lacks the factor s_i
def mix(adapters, weights):
    A = np.concatenate([A for A, _, _ in adapters.values()])
    B = np.concatenate([weights[name] * B for name, (_, B, _) in adapters.items()], axis=1)
    return A, B

# == best_weight: right, by polyfit
def best_weight(new, old, price):
    a, b, c = np.polyfit(np.array([0, 0.5, 1]), new + price * old, 2)
    return float(np.roots([2 * a, b])[0])

# == best_weight: wrong, (f0, f_half, f1) lacks the factor price
def best_weight(new, old, price):
    a, b, c = np.polyfit([0, 0.5, 1], new + old, 2)
    return -b / (2 * a)

# == update_cosine: right, as traces
def update_cosine(A1, B1, A2, B2):
    cross = np.trace((B1.T @ B2) @ (A2 @ A1.T))
    one, two = np.trace(B1.T @ B1 @ A1 @ A1.T), np.trace(B2.T @ B2 @ A2 @ A2.T)
    return float(cross / np.sqrt(one) / np.sqrt(two))

# == update_cosine: wrong, cosine lacks the divisor np.sqrt(
def update_cosine(A1, B1, A2, B2):
    return np.sum((B1.T @ B2) * (A1 @ A2.T))

# == compress: right, all of Σ in B
def compress(A, B, r):
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(np.transpose(A))
    U, sigma, Vt = np.linalg.svd(R_B @ np.transpose(R_A))
    error = np.linalg.norm(sigma[r:]) / np.linalg.norm(sigma)
    return Vt[:r] @ Q_A.T, Q_B @ U[:, :r] * sigma[:r], float(error)

# == compress: wrong, error lacks the divisor np.sum(sigma ** 2)
def compress(A, B, r):
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(A.T)
    U, sigma, Vt = np.linalg.svd(R_B @ R_A.T)
    return Vt[:r] @ Q_A.T, Q_B @ (U[:, :r] * sigma[:r]), np.linalg.norm(sigma[r:])

# == update_cosine: wrong, its signs are lost
def update_cosine(A1, B1, A2, B2):
    cross = np.sum((B1.T @ B2) * (A1 @ A2.T))
    return abs(cross) / np.sqrt(np.sum((B1.T @ B1) * (A1 @ A1.T)) * np.sum((B2.T @ B2) * (A2 @ A2.T)))

# == update_cosine: wrong, it forms ΔW or another array of that size
def update_cosine(A1, B1, A2, B2):
    one, other = B1 @ A1, B2 @ A2
    return np.sum(one * other) / np.linalg.norm(one) / np.linalg.norm(other)

# == compress: wrong, it forms B A or another array of that size
def compress(A, B, r):
    U, sigma, Vt = np.linalg.svd(B @ A, full_matrices=False)
    return sigma[:r, None] * Vt[:r], U[:, :r], np.sqrt(np.sum(sigma[r:] ** 2) / np.sum(sigma**2))
