"""Attempts at exercise set 09. Each begins with `# ==`, the item, and what it is: right; or wrong, and after it words
of the diagnosis that it has to get."""

# == next_probabilities: right, row by row, the k places by argpartition
def next_probabilities(logits, temperature, top_k):
    probs = np.zeros_like(logits)
    for row, z in zip(probs, logits):
        best = np.argpartition(-z, top_k - 1)[:top_k]
        weights = np.exp((z[best] - z[best].max()) / temperature)
        row[best] = weights / weights.sum()
    return probs


# == next_probabilities: right, cut after the softmax and divided again
def next_probabilities(logits, temperature, top_k):
    exp = np.exp((logits - np.max(logits, axis=1)[:, None]) / temperature)
    exp *= exp >= np.partition(exp, -top_k, axis=1)[:, [-top_k]]
    return (exp.T / exp.sum(axis=1)).T


# == next_probabilities: right, powers of the odds
def next_probabilities(logits, temperature, top_k):
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True)) ** (1 / temperature)
    places = np.argsort(np.argsort(-odds, axis=-1), axis=-1)
    odds[places >= top_k] = 0.0
    return odds / odds.sum(axis=-1, keepdims=True)


# == next_probabilities: wrong, not finite
def next_probabilities(logits, temperature, top_k):
    exp = np.exp(logits / temperature)
    exp[exp < np.sort(exp, axis=-1)[:, [-top_k]]] = 0.0
    return exp / exp.sum(axis=-1, keepdims=True)


# == next_probabilities: wrong, not finite
def next_probabilities(logits, temperature, top_k):
    exp = np.exp((logits - logits.max()) / temperature)
    exp[exp < np.sort(exp, axis=-1)[:, [-top_k]]] = 0.0
    return exp / exp.sum(axis=-1, keepdims=True)


# == next_probabilities: wrong, what is left does not add up to 1
def next_probabilities(logits, temperature, top_k):
    exp = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    probs = exp / exp.sum(axis=-1, keepdims=True)
    return np.where(probs < np.sort(probs, axis=-1)[:, [-top_k]], 0.0, probs)


# == next_probabilities: wrong, exp(0) is not
def next_probabilities(logits, temperature, top_k):
    limit = np.sort(logits, axis=-1)[:, [-top_k]]
    z = np.where(logits < limit, 0.0, logits) / temperature
    exp = np.exp(z - z.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


# == next_probabilities: wrong, multiplied by the temperature
def next_probabilities(logits, temperature, top_k):
    z = logits * temperature
    z = np.where(z < np.sort(z, axis=-1)[:, [-top_k]], -np.inf, z)
    exp = np.exp(z - z.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


# == next_probabilities: wrong, the temperature is missing
def next_probabilities(logits, temperature, top_k):
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs = exp / exp.sum(axis=-1, keepdims=True) / temperature
    probs[probs < np.sort(probs, axis=-1)[:, [-top_k]]] = 0.0
    return probs / probs.sum(axis=-1, keepdims=True)


# == next_probabilities: wrong, one token too few
def next_probabilities(logits, temperature, top_k):
    z = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    exp = np.exp(z)
    exp[z <= np.sort(z, axis=-1)[:, [-top_k]]] = 0.0
    return exp / exp.sum(axis=-1, keepdims=True)


# == next_probabilities: wrong, one token too many
def next_probabilities(logits, temperature, top_k):
    z = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    exp = np.exp(z)
    exp[z < np.sort(z, axis=-1)[:, ::-1][:, [top_k]]] = 0.0
    return exp / exp.sum(axis=-1, keepdims=True)


# == next_probabilities: wrong, no longer where their tokens are
def next_probabilities(logits, temperature, top_k):
    z = np.sort(logits, axis=-1)[:, ::-1] / temperature
    exp = np.exp(z - z[:, :1])
    exp[:, top_k:] = 0.0
    return exp / exp.sum(axis=-1, keepdims=True)


# == next_probabilities: wrong, the k least likely tokens are kept
def next_probabilities(logits, temperature, top_k):
    order = np.argsort(logits, axis=-1)
    z = np.full(logits.shape, -np.inf)
    for row in range(len(logits)):
        z[row, order[row, :top_k]] = logits[row, order[row, :top_k]] / temperature
    exp = np.exp(z - z.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


# == nucleus: right, token by token
def nucleus(probs, p):
    kept = np.zeros_like(probs)
    for row, left in zip(probs, kept):
        for token in np.argsort(-row):
            left[token] = row[token]
            if left.sum() >= p - 1e-12:
                break
        left /= left.sum()
    return kept


# == nucleus: right, by counting and by the inverse order
def nucleus(probs, p):
    order = np.argsort(probs)[:, ::-1]
    upto = np.cumsum(np.take_along_axis(probs, order, axis=1), axis=1)
    count = 1 + np.sum(upto < p, axis=1)
    place = np.argsort(order, axis=1)
    kept = probs * (place < count[:, None])
    return kept / np.sum(kept, axis=1, keepdims=True)


# == nucleus: right, by the smallest probability that stays
def nucleus(probs, p):
    falling = -np.sort(-probs)
    last = np.argmax(np.cumsum(falling, axis=-1) >= p, axis=-1)
    smallest = falling[np.arange(len(probs)), last]
    kept = np.where(probs >= smallest[:, None], probs, 0)
    return np.einsum("bv,b->bv", kept, 1 / kept.sum(-1))


# == nucleus: wrong, carries the sum to p or beyond it is missing
def nucleus(probs, p):
    order = np.argsort(-probs, axis=-1)
    upto = np.cumsum(np.take_along_axis(probs, order, axis=-1), axis=-1)
    stays = np.zeros(probs.shape, dtype=bool)
    np.put_along_axis(stays, order, upto <= p, axis=-1)
    kept = probs * stays
    return kept / kept.sum(axis=-1, keepdims=True)


# == nucleus: wrong, missing, even where p is reached exactly
def nucleus(probs, p):
    order = np.argsort(-probs, axis=-1)
    upto = np.cumsum(np.take_along_axis(probs, order, axis=-1), axis=-1)
    inside = upto < p
    inside[:, 0] = True
    stays = np.zeros(probs.shape, dtype=bool)
    np.put_along_axis(stays, order, inside, axis=-1)
    kept = probs * stays
    return kept / kept.sum(axis=-1, keepdims=True)


# == nucleus: wrong, one token too many where p is reached exactly
def nucleus(probs, p):
    kept = np.zeros_like(probs)
    for b in range(len(probs)):
        total = 0.0
        for token in np.argsort(-probs[b]):
            if total > p:
                break
            kept[b, token] = probs[b, token]
            total += probs[b, token]
    return kept / kept.sum(axis=-1, keepdims=True)


# == nucleus: wrong, what is left does not add up to 1
def nucleus(probs, p):
    kept = np.zeros_like(probs)
    for b in range(len(probs)):
        order = np.argsort(-probs[b])
        n = np.searchsorted(np.cumsum(probs[b, order]), p) + 1
        kept[b, order[:n]] = probs[b, order[:n]]
    return kept


# == nucleus: wrong, divided by p
def nucleus(probs, p):
    kept = np.zeros_like(probs)
    for b in range(len(probs)):
        order = np.argsort(-probs[b])
        n = np.searchsorted(np.cumsum(probs[b, order]), p) + 1
        kept[b, order[:n]] = probs[b, order[:n]] / p
    return kept


# == nucleus: wrong, no longer where their tokens are
def nucleus(probs, p):
    falling = np.sort(probs, axis=-1)[:, ::-1]
    kept = falling * (np.cumsum(falling, axis=-1) - falling < p)
    return kept / kept.sum(axis=-1, keepdims=True)


# == nucleus: wrong, the way back from the sorted row is the way there
def nucleus(probs, p):
    order = np.argsort(-probs, axis=-1)
    falling = np.take_along_axis(probs, order, axis=-1)
    kept = falling * (np.cumsum(falling, axis=-1) - falling < p)
    stays = np.take_along_axis(kept > 0, order, axis=-1)
    kept = probs * stays
    return kept / kept.sum(axis=-1, keepdims=True)


# == nucleus: wrong, in the order of the vocabulary
def nucleus(probs, p):
    before = np.cumsum(probs, axis=-1) - probs
    kept = np.where(before < p, probs, 0.0)
    return kept / kept.sum(axis=-1, keepdims=True)


# == nucleus: wrong, held against 1 − p by itself
def nucleus(probs, p):
    kept = np.where(probs >= 1 - p, probs, 0.0)
    return kept / kept.sum(axis=-1, keepdims=True)


# == nucleus: wrong, as many tokens as the first one
def nucleus(probs, p):
    falling = np.sort(probs, axis=-1)[:, ::-1]
    count = int(np.argmax(np.cumsum(falling, axis=-1) >= p)) + 1
    kept = np.where(probs >= falling[:, [count - 1]], probs, 0.0)
    return kept / kept.sum(axis=-1, keepdims=True)


# == rows_forward: right, each row by itself with a merged weight
def rows_forward(x, W, b, adapters, names):
    rows = []
    for x_n, name in zip(x, names):
        weight = W
        if name is not None:
            A, B, s = adapters[name]
            weight = W + s * B @ A
        rows.append(weight @ x_n + b)
    return np.array(rows)


# == rows_forward: right, every adapter on every row, times 0 or 1
def rows_forward(x, W, b, adapters, names):
    y = np.einsum("ni,oi->no", x, W) + b
    for name, (A, B, s) in adapters.items():
        mine = np.array([float(other == name) for other in names])
        y = y + np.einsum("n,ni,ri,or->no", s * mine, x, A, B)
    return y


# == rows_forward: right, one wide product of all factors and a mask between
def rows_forward(x, W, b, adapters, names):
    A = np.vstack([A for A, _, _ in adapters.values()])
    B = np.hstack([s * B for _, B, s in adapters.values()])
    owner = [name for name, (A_i, _, _) in adapters.items() for _ in A_i]
    mask = np.array([[name == its for its in owner] for name in names])
    return x @ W.T + b + (mask * (x @ A.T)) @ B.T


# == rows_forward: wrong, the scale s is missing
def rows_forward(x, W, b, adapters, names):
    y = x @ W.T + b
    for n, name in enumerate(names):
        if name is not None:
            A, B, s = adapters[name]
            y[n] += x[n] @ A.T @ B.T
    return y


# == rows_forward: wrong, rows without an adapter are 0
def rows_forward(x, W, b, adapters, names):
    y = np.zeros((len(x), len(W)))
    for name, (A, B, s) in adapters.items():
        rows = [n for n, other in enumerate(names) if other == name]
        y[rows] = x[rows] @ W.T + b + s * (x[rows] @ A.T) @ B.T
    return y


# == rows_forward: wrong, rows with an adapter lack the base's part
def rows_forward(x, W, b, adapters, names):
    y = x @ W.T + b
    for n, name in enumerate(names):
        if name is not None:
            A, B, s = adapters[name]
            y[n] = s * B @ (A @ x[n])
    return y


# == rows_forward: wrong, every row has all adapters at once
def rows_forward(x, W, b, adapters, names):
    y = x @ W.T + b
    for name in adapters:
        A, B, s = adapters[name]
        y += s * (x @ A.T) @ B.T
    return y


# == rows_forward: wrong, the adapter of the row before
def rows_forward(x, W, b, adapters, names):
    y = x @ W.T + b
    for n, name in enumerate(names):
        if name is not None:
            A, B, s = adapters[name]
        y[n] += s * (x[n] @ A.T) @ B.T
    return y


# == rows_forward: wrong, the rows come out group by group
def rows_forward(x, W, b, adapters, names):
    groups = [x[[n for n, name in enumerate(names) if name is None]] @ W.T + b]
    for its_name, (A, B, s) in adapters.items():
        mine = x[[n for n, name in enumerate(names) if name == its_name]]
        groups.append(mine @ W.T + b + s * (mine @ A.T) @ B.T)
    return np.concatenate(groups)


# == rows_forward: wrong, only the last adapter's rows have one
def rows_forward(x, W, b, adapters, names):
    for name, (A, B, s) in adapters.items():
        y = x @ W.T + b
        mine = np.array([other == name for other in names])
        y[mine] += s * (x[mine] @ A.T) @ B.T
    return y


# == rows_forward: wrong, the bias is missing in rows with an adapter
def rows_forward(x, W, b, adapters, names):
    y = x @ W.T + b
    for n, name in enumerate(names):
        if name is not None:
            A, B, s = adapters[name]
            y[n] = (W + s * B @ A) @ x[n]
    return y


# == rows_forward: wrong, it raises KeyError
def rows_forward(x, W, b, adapters, names):
    y = x @ W.T + b
    for n, name in enumerate(names):
        A, B, s = adapters[name]
        y[n] += s * (x[n] @ A.T) @ B.T
    return y


# == mix: right, filled into arrays, weights on A
def mix(adapters, weights):
    ranks = [len(A) for A, _, _ in adapters.values()]
    ends = np.cumsum(ranks)
    first_A, first_B, _ = next(iter(adapters.values()))
    A, B = np.empty((ends[-1], first_A.shape[1])), np.empty((len(first_B), ends[-1]))
    for name, end, r in zip(adapters, ends, ranks):
        A_i, B_i, s = adapters[name]
        A[end - r : end] = weights[name] * s * A_i
        B[:, end - r : end] = B_i
    return A, B


# == mix: right, from the update by singular values
def mix(adapters, weights):
    delta = sum(weights[name] * s * B @ A for name, (A, B, s) in adapters.items())
    R = min(sum(len(A) for A, _, _ in adapters.values()), *delta.shape)
    U, sigma, Vt = np.linalg.svd(delta, full_matrices=False)
    return sigma[:R, None] * Vt[:R], U[:, :R]


# == mix: right, column by column in another order
def mix(adapters, weights):
    rows, columns = [], []
    for name in sorted(weights, reverse=True):
        A, B, s = adapters[name]
        for a, b in zip(A, B.T):
            rows.append(a * s)
            columns.append(b * weights[name])
    return {"A": np.array(rows), "B": np.array(columns).T}


# == mix: wrong, which brings in cross terms
def mix(adapters, weights):
    A = sum(adapters[name][0] for name in adapters)
    B = sum(weights[name] * adapters[name][2] * adapters[name][1] for name in adapters)
    return A, B


# == mix: wrong, which brings in cross terms
def mix(adapters, weights):
    A = sum(weights[name] * adapters[name][0] for name in adapters)
    B = sum(weights[name] * adapters[name][1] for name in adapters)
    return A, B


# == mix: wrong, the scales are missing
def mix(adapters, weights):
    A = np.concatenate([A for A, _, _ in adapters.values()])
    B = np.concatenate([weights[name] * B for name, (_, B, _) in adapters.items()], axis=1)
    return A, B


# == mix: wrong, the weights are at work twice
def mix(adapters, weights):
    A = np.vstack([weights[name] * A for name, (A, _, s) in adapters.items()])
    B = np.hstack([weights[name] * s * B for name, (_, B, s) in adapters.items()])
    return A, B


# == mix: wrong, weights and scales are at work twice
def mix(adapters, weights):
    A = np.vstack([weights[name] * s * A for name, (A, _, s) in adapters.items()])
    B = np.hstack([weights[name] * s * B for name, (_, B, s) in adapters.items()])
    return A, B


# == mix: wrong, they belong to names
def mix(adapters, weights):
    pairs = list(zip(adapters.values(), weights.values()))
    return np.vstack([A for (A, _, _), _ in pairs]), np.hstack([w * s * B for (_, B, s), w in pairs])


# == mix: wrong, stand in different orders
def mix(adapters, weights):
    A = B = None
    for name, (A_i, B_i, s) in adapters.items():
        A = A_i if A is None else np.vstack([A_i, A])
        B = weights[name] * s * B_i if B is None else np.hstack([B, weights[name] * s * B_i])
    return A, B


# == mix: wrong, divided by the sum of the weights
def mix(adapters, weights):
    total = sum(weights.values())
    A = np.vstack([A for A, _, _ in adapters.values()])
    B = np.hstack([weights[name] / total * s * B for name, (_, B, s) in adapters.items()])
    return A, B


# == mix: wrong, so many are enough
def mix(adapters, weights):
    delta = sum(weights[name] * s * B @ A for name, (A, B, s) in adapters.items())
    return np.eye(delta.shape[1]), delta


# == best_weight: right, by polyfit
def best_weight(new, old, price):
    a, b, c = np.polyfit(np.array([0, 0.5, 1]), new + price * old, 2)
    return float(np.roots([2 * a, b])[0])


# == best_weight: right, by solving three equations
def best_weight(new, old, price):
    w = np.array([0.0, 0.5, 1.0])
    a, b, c = np.linalg.solve(np.stack([w**2, w, np.ones(3)], axis=1), new + price * old)
    return -b / a / 2


# == best_weight: right, from the middle by differences
def best_weight(new, old, price):
    left, middle, right = new + price * old
    slope = (right - left) / 1.0
    bend = (right - 2 * middle + left) / 0.25
    return 0.5 - slope / bend


# == best_weight: wrong, the price is missing
def best_weight(new, old, price):
    a, b, c = np.polyfit([0, 0.5, 1], new + old, 2)
    return -b / (2 * a)


# == best_weight: wrong, one of the three weights that were measured
def best_weight(new, old, price):
    return [0, 0.5, 1][int(np.argmin(new + price * old))]


# == best_weight: wrong, one of the three weights that were measured
def best_weight(new, old, price):
    a, b, c = np.polyfit([0, 0.5, 1], new + price * old, 2)
    return float(np.clip(-b / (2 * a), 0, 1))


# == best_weight: wrong, it is twice as much
def best_weight(new, old, price):
    a, b, c = np.polyfit([0, 1, 2], new + price * old, 2)
    return -b / (2 * a)


# == best_weight: wrong, it is twice as much
def best_weight(new, old, price):
    a, b, c = np.polyfit([0, 0.5, 1], new + price * old, 2)
    return -b / a


# == best_weight: wrong, its sign is reversed
def best_weight(new, old, price):
    a, b, c = np.polyfit([0, 0.5, 1], new + price * old, 2)
    return b / (2 * a)


# == best_weight: wrong, only the new text counts
def best_weight(new, old, price):
    f0, f_half, f1 = new
    return (3 * f0 - 4 * f_half + f1) / (4 * (f0 - 2 * f_half + f1))


# == best_weight: wrong, this is the loss at the lowest point
def best_weight(new, old, price):
    f = np.poly1d(np.polyfit([0, 0.5, 1], new + price * old, 2))
    return f(f.deriv().roots[0])


# == best_weight: wrong, counts as a gain
def best_weight(new, old, price):
    f0, f_half, f1 = new - price * old
    return (3 * f0 - 4 * f_half + f1) / (4 * (f0 - 2 * f_half + f1))


# == update_cosine: right, pair by pair of outer products
def update_cosine(A1, B1, A2, B2):
    def dot(A, B, C, D):
        total = 0.0
        for k in range(len(A)):
            for m in range(len(C)):
                total += (B[:, k] @ D[:, m]) * (A[k] @ C[m])
        return total

    return dot(A1, B1, A2, B2) / (dot(A1, B1, A1, B1) * dot(A2, B2, A2, B2)) ** 0.5


# == update_cosine: right, as traces
def update_cosine(A1, B1, A2, B2):
    cross = np.trace((B1.T @ B2) @ (A2 @ A1.T))
    one, two = np.trace(B1.T @ B1 @ A1 @ A1.T), np.trace(B2.T @ B2 @ A2 @ A2.T)
    return float(cross / np.sqrt(one) / np.sqrt(two))


# == update_cosine: right, by einsum and the triangles of QR
def update_cosine(A1, B1, A2, B2):
    cross = np.einsum("ok,om,ki,mi->", B1, B2, A1, A2, optimize=["einsum_path", (0, 1), (0, 1), (0, 1)])
    lengths = 1.0
    for A, B in ((A1, B1), (A2, B2)):
        R_B, R_A = np.linalg.qr(B, mode="r"), np.linalg.qr(A.T, mode="r")
        lengths = lengths * np.linalg.norm(R_B @ R_A.T)
    return cross / lengths


# == update_cosine: wrong, B A has been formed
def update_cosine(A1, B1, A2, B2):
    one, two = B1 @ A1, B2 @ A2
    return np.sum(one * two) / (np.linalg.norm(one) * np.linalg.norm(two))


# == update_cosine: wrong, this is the scalar product
def update_cosine(A1, B1, A2, B2):
    return np.sum((B1.T @ B2) * (A1 @ A2.T))


# == update_cosine: wrong, the squares of the lengths
def update_cosine(A1, B1, A2, B2):
    def dot(A, B, C, D):
        return np.sum((B.T @ D) * (A @ C.T))

    return dot(A1, B1, A2, B2) / (dot(A1, B1, A1, B1) * dot(A2, B2, A2, B2))


# == update_cosine: wrong, a product's length is not the product of the lengths
def update_cosine(A1, B1, A2, B2):
    lengths = np.linalg.norm(A1) * np.linalg.norm(B1) * np.linalg.norm(A2) * np.linalg.norm(B2)
    return np.sum((B1.T @ B2) * (A1 @ A2.T)) / lengths


# == update_cosine: wrong, the cosine of the A's is multiplied by that of the B's
def update_cosine(A1, B1, A2, B2):
    def cosine(x, y):
        return np.sum(x * y) / np.linalg.norm(x) / np.linalg.norm(y)

    return cosine(A1, A2) * cosine(B1, B2)


# == update_cosine: wrong, transposed against the other
def update_cosine(A1, B1, A2, B2):
    def dot(A, B, C, D):
        return np.sum((B.T @ D) * (A @ C.T))

    return np.sum((B1.T @ B2) * (A2 @ A1.T)) / np.sqrt(dot(A1, B1, A1, B1) * dot(A2, B2, A2, B2))


# == update_cosine: wrong, the small matrices are added up before they meet
def update_cosine(A1, B1, A2, B2):
    def dot(A, B, C, D):
        return np.sum((B.T @ D) * (A @ C.T))

    cross = (B1.T @ B2).sum() * (A1 @ A2.T).sum()
    return cross / np.sqrt(dot(A1, B1, A1, B1) * dot(A2, B2, A2, B2))


# == update_cosine: wrong, this is the angle, in radians
def update_cosine(A1, B1, A2, B2):
    def dot(A, B, C, D):
        return np.sum((B.T @ D) * (A @ C.T))

    return np.arccos(dot(A1, B1, A2, B2) / np.sqrt(dot(A1, B1, A1, B1) * dot(A2, B2, A2, B2)))


# == compress: right, all of Σ in B
def compress(A, B, r):
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(np.transpose(A))
    U, sigma, Vt = np.linalg.svd(R_B @ np.transpose(R_A))
    error = np.linalg.norm(sigma[r:]) / np.linalg.norm(sigma)
    return Vt[:r] @ Q_A.T, Q_B @ U[:, :r] * sigma[:r], float(error)


# == compress: right, one side by QR and the other by the SVD
def compress(A, B, r):
    Q, R = np.linalg.qr(B)
    U, sigma, Vt = np.linalg.svd(R @ A, full_matrices=False)  # (R, in): thin
    kept = np.diag(np.sqrt(sigma[:r]))
    return {
        "A_r": kept @ Vt[:r],
        "B_r": Q @ U[:, :r] @ kept,
        "error": np.sqrt(1 - np.sum(sigma[:r] ** 2) / np.sum(sigma**2)),
    }


# == compress: right, by eigenvectors of small matrices
def compress(A, B, r):
    values, vectors = np.linalg.eigh(B.T @ B)
    half = vectors * np.sqrt(values)  # B = Q halfᵀ, Q = B vectors / √values
    Q = B @ (vectors / np.sqrt(values))
    core = half.T @ A  # (R, in)
    squares, left = np.linalg.eigh(core @ core.T)
    order = np.argsort(-squares)[:r]
    keep = left[:, order]
    return keep.T @ core, Q @ keep, np.sqrt((squares.sum() - squares[order].sum()) / squares.sum())


# == compress: wrong, B A has been formed
def compress(A, B, r):
    U, sigma, Vt = np.linalg.svd(B @ A, full_matrices=False)
    error = np.linalg.norm(sigma[r:]) / np.linalg.norm(sigma)
    return Vt[:r], U[:, :r] * sigma[:r], error


# == compress: wrong, the first r rows of A and columns of B are kept
def compress(A, B, r):
    sigma = np.linalg.svd(np.linalg.qr(B)[1] @ np.linalg.qr(A.T)[1].T, compute_uv=False)
    return A[:r], B[:, :r], np.linalg.norm(sigma[r:]) / np.linalg.norm(sigma)


# == compress: wrong, they overlap
def compress(A, B, r):
    sizes = np.linalg.norm(B, axis=0) * np.linalg.norm(A, axis=1)
    best = np.argsort(-sizes)[:r]
    sigma = np.linalg.svd(np.linalg.qr(B)[1] @ np.linalg.qr(A.T)[1].T, compute_uv=False)
    return A[best], B[:, best], np.linalg.norm(sigma[r:]) / np.linalg.norm(sigma)


# == compress: wrong, Σ is in it twice
def compress(A, B, r):
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(A.T)
    U, sigma, Vt = np.linalg.svd(R_B @ R_A.T)
    error = np.linalg.norm(sigma[r:]) / np.linalg.norm(sigma)
    return (sigma[:r, None] * Vt[:r]) @ Q_A.T, Q_B @ (U[:, :r] * sigma[:r]), error


# == compress: wrong, Σ is missing
def compress(A, B, r):
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(A.T)
    U, sigma, Vt = np.linalg.svd(R_B @ R_A.T)
    error = np.linalg.norm(sigma[r:]) / np.linalg.norm(sigma)
    return Vt[:r] @ Q_A.T, Q_B @ U[:, :r], error


# == compress: wrong, A's R is not transposed
def compress(A, B, r):
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(A.T)
    U, sigma, Vt = np.linalg.svd(R_B @ R_A)
    root = np.sqrt(sigma[:r])
    error = np.linalg.norm(sigma[r:]) / np.linalg.norm(sigma)
    return (root[:, None] * Vt[:r]) @ Q_A.T, Q_B @ (U[:, :r] * root), error


# == compress: wrong, the columns of NumPy's third result
def compress(A, B, r):
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(A.T)
    U, sigma, V = np.linalg.svd(R_B @ R_A.T)
    root = np.sqrt(sigma[:r])
    error = np.linalg.norm(sigma[r:]) / np.linalg.norm(sigma)
    return (V[:, :r] * root).T @ Q_A.T, Q_B @ (U[:, :r] * root), error


# == compress: wrong, a root is missing
def compress(A, B, r):
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(A.T)
    U, sigma, Vt = np.linalg.svd(R_B @ R_A.T)
    error = np.sum(sigma[r:] ** 2) / np.sum(sigma**2)
    return Vt[:r] @ Q_A.T, Q_B @ (U[:, :r] * sigma[:r]), error


# == compress: wrong, this is 1 − ‖ΔW′‖ / ‖ΔW‖
def compress(A, B, r):
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(A.T)
    U, sigma, Vt = np.linalg.svd(R_B @ R_A.T)
    error = 1 - np.linalg.norm(sigma[:r]) / np.linalg.norm(sigma)
    return Vt[:r] @ Q_A.T, Q_B @ (U[:, :r] * sigma[:r]), error


# == compress: wrong, not divided by ‖ΔW‖
def compress(A, B, r):
    Q_B, R_B = np.linalg.qr(B)
    Q_A, R_A = np.linalg.qr(A.T)
    U, sigma, Vt = np.linalg.svd(R_B @ R_A.T)
    return Vt[:r] @ Q_A.T, Q_B @ (U[:, :r] * sigma[:r]), np.linalg.norm(sigma[r:])
