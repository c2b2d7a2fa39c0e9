"""Attempts at exercise set 06. Each begins with `# ==`, the item, and what it is: right; or wrong, and after it words
of the diagnosis that it has to get."""

# == read_last: right, by a loop
def read_last(h, lengths):
    rows = []
    for text, n in zip(h, lengths):
        rows.append(text[:n][-1])
    return np.array(rows)


# == read_last: right, picked out by a product with zeros and ones
def read_last(h, lengths):
    last = np.arange(1, h.shape[1] + 1) == lengths[:, None]
    return np.einsum("bt,btc->bc", last, h)


# == read_last: right, with take_along_axis
def read_last(h, lengths):
    where = (np.array(lengths) - 1).reshape(-1, 1, 1)
    return np.take_along_axis(h, where, axis=1).squeeze(1)


# == read_last: right, the diagonal of too much
def read_last(h, lengths):
    every = h[:, lengths - 1]
    return np.array([every[b, b] for b in range(len(h))])


# == read_last: wrong, the last position of the array
def read_last(h, lengths):
    return h[:, -1, :]


# == read_last: wrong, the position after the last token
def read_last(h, lengths):
    return np.stack([h[b, n] for b, n in enumerate(lengths)])


# == read_last: wrong, the last token but one
def read_last(h, lengths):
    return h[range(len(h)), lengths - 2]


# == read_last: wrong, counted from the end
def read_last(h, lengths):
    return h[np.arange(len(h)), -lengths]


# == read_last: wrong, the mean over a text's real tokens
def read_last(h, lengths):
    return np.array([h[b, :n].mean(axis=0) for b, n in enumerate(lengths)])


# == read_last: wrong, the first position
def read_last(h, lengths):
    return h[:, 0]


# == read_last: wrong, where the longest one ends
def read_last(h, lengths):
    return h[:, max(lengths) - 1]


# == read_last: wrong, it has shape
def read_last(h, lengths):
    return h[:, lengths - 1]


# == accuracy: right, row by row
def accuracy(logits, labels):
    right = 0
    for row, label in zip(logits, labels):
        if all(row[label] >= row):
            right += 1
    return right / len(labels)


# == accuracy: right, by the margin over the others
def accuracy(logits, labels):
    of_label = np.take_along_axis(logits, labels[:, None], axis=1)
    return float((of_label == logits.max(axis=1, keepdims=True)).sum()) / logits.shape[0]


# == accuracy: right, through the softmax and one-hot rows
def accuracy(logits, labels):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    chosen = np.eye(p.shape[1])[np.argmax(p, axis=1)]
    return np.trace(chosen @ np.eye(p.shape[1])[labels].T) / len(p)


# == accuracy: wrong, how many are right
def accuracy(logits, labels):
    return np.sum(np.argmax(logits, axis=1) == labels)


# == accuracy: wrong, the share of the wrong ones
def accuracy(logits, labels):
    return (logits.argmax(-1) != labels).mean()


# == accuracy: wrong, in per cent
def accuracy(logits, labels):
    return 100 * (logits.argmax(-1) == labels).mean()


# == accuracy: wrong, above ½, whatever the others are
def accuracy(logits, labels):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.mean([p[n, label] > 0.5 for n, label in enumerate(labels)])


# == accuracy: wrong, averaged over the rows
def accuracy(logits, labels):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return p[np.arange(len(p)), labels].mean()


# == accuracy: wrong, also those that were rightly not chosen
def accuracy(logits, labels):
    K = logits.shape[1]
    return np.mean(np.eye(K)[logits.argmax(axis=1)] == np.eye(K)[labels])


# == accuracy: wrong, it raises
def accuracy(logits, labels):
    return sum(logits.argmax(axis=0) == labels) / len(labels)


# == standard_error: right, as a quotient of roots
def standard_error(accuracy, n):
    return (accuracy - accuracy**2) ** 0.5 / n**0.5


# == standard_error: right, from an imagined split that has just this share
def standard_error(accuracy, n):
    values, shares = np.array([1.0, 0.0]), np.array([accuracy, 1 - accuracy])
    mean = values @ shares
    return np.sqrt(((values - mean) ** 2) @ shares / n)


# == standard_error: wrong, the root is missing
def standard_error(accuracy, n):
    return accuracy * (1 - accuracy) / n


# == standard_error: wrong, n stands outside
def standard_error(accuracy, n):
    return np.sqrt(accuracy * (1 - accuracy)) / n


# == standard_error: wrong, how far a single toss scatters
def standard_error(accuracy, n):
    return np.sqrt(accuracy * (1 - accuracy))


# == standard_error: wrong, right at one half alone
def standard_error(accuracy, n):
    return 1 / (2 * np.sqrt(n))


# == standard_error: wrong, the way to 95 in a hundred
def standard_error(accuracy, n):
    return 1.96 * np.sqrt(accuracy * (1 - accuracy) / n)


# == standard_error: wrong, in points
def standard_error(accuracy, n):
    p = 100 * accuracy
    return np.sqrt(p * (100 - p) / n)


# == standard_error: wrong, the factor 1 − p is missing
def standard_error(accuracy, n):
    return np.sqrt(accuracy / n)


# == standard_error: wrong, n − 1 stands where n belongs
def standard_error(accuracy, n):
    return np.sqrt(accuracy * (1 - accuracy) / (n - 1))


# == paired_difference: right, from the two counts
def paired_difference(hits_one, hits_other):
    n = len(hits_one)
    b = np.sum(hits_one & ~hits_other)
    c = np.sum(~hits_one & hits_other)
    return (b - c) / n, np.sqrt((b + c) / n - ((b - c) / n) ** 2) / np.sqrt(n)


# == paired_difference: right, through variances and the covariance
def paired_difference(hits_one, hits_other):
    one, other = 1.0 * hits_one, 1.0 * hits_other
    spread = np.cov(one, other, bias=True)
    variance = spread[0, 0] + spread[1, 1] - 2 * spread[0, 1]
    return {"error": (variance / one.size) ** 0.5, "difference": one.mean() - other.mean()}


# == paired_difference: right, in plain Python
def paired_difference(hits_one, hits_other):
    d = [int(a) - int(b) for a, b in zip(hits_one, hits_other)]
    mean = sum(d) / len(d)
    return [mean, sum((x - mean) ** 2 for x in d) ** 0.5 / len(d)]


# == paired_difference: wrong, two separate test splits
def paired_difference(hits_one, hits_other):
    p, q, n = hits_one.mean(), hits_other.mean(), len(hits_one)
    return p - q, np.sqrt(p * (1 - p) / n + q * (1 - q) / n)


# == paired_difference: wrong, its sign is reversed
def paired_difference(hits_one, hits_other):
    d = hits_other.astype(int) - hits_one.astype(int)
    return d.mean(), d.std() / np.sqrt(len(d))


# == paired_difference: wrong, √n is missing
def paired_difference(hits_one, hits_other):
    d = hits_one.astype(int) - hits_other.astype(int)
    return d.mean(), d.std()


# == paired_difference: wrong, divides by n − 1
def paired_difference(hits_one, hits_other):
    d = hits_one.astype(int) - hits_other.astype(int)
    return d.mean(), d.std(ddof=1) / np.sqrt(len(d))


# == paired_difference: wrong, among the snippets on which they differ
def paired_difference(hits_one, hits_other):
    d = hits_one.astype(int) - hits_other.astype(int)
    return d[d != 0].mean(), d.std() / np.sqrt(len(d))


# == paired_difference: wrong, the square of the mean difference is not taken off
def paired_difference(hits_one, hits_other):
    d = hits_one.astype(int) - hits_other.astype(int)
    return d.mean(), np.sqrt(np.sum(d**2)) / len(d)


# == paired_difference: wrong, the share of the snippets on which they differ
def paired_difference(hits_one, hits_other):
    d = (hits_one ^ hits_other).astype(float)
    return d.mean(), d.std() / np.sqrt(len(d))


# == paired_difference: wrong, it raises TypeError
def paired_difference(hits_one, hits_other):
    d = hits_one - hits_other
    return d.mean(), d.std() / np.sqrt(len(d))


# == adamw_step: right, element by element
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    new_p, new_m, new_v = np.empty(p.shape), np.empty(p.shape), np.empty(p.shape)
    for place in np.ndindex(p.shape):
        a = beta1 * m[place] + (1 - beta1) * g[place]
        b = beta2 * v[place] + (1 - beta2) * g[place] * g[place]
        q = p[place]
        if p.ndim > 1:
            q = q * (1 - lr * weight_decay)
        q = q - lr * (a / (1 - beta1**step)) / ((b / (1 - beta2**step)) ** 0.5 + eps)
        new_p[place], new_m[place], new_v[place] = q, a, b
    return new_p, new_m, new_v


# == adamw_step: right, in place on own copies
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    p, m, v = p.copy(), m.copy(), v.copy()
    m += (1 - beta1) * (g - m)
    v += (1 - beta2) * (g * g - v)
    if len(p.shape) >= 2:
        p *= 1 - lr * weight_decay
    p -= lr * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return {"m": m, "v": v, "p": p}


# == adamw_step: right, with the corrections drawn together
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = np.average([m, g], axis=0, weights=[beta1, 1 - beta1])
    v = np.average([v, g**2], axis=0, weights=[beta2, 1 - beta2])
    root = np.sqrt(1 - beta2**step)
    update = root / (1 - beta1**step) * m / (np.sqrt(v) + root * eps)
    if p.ndim > 1:
        update = update + weight_decay * p
    return [p - lr * update, m, v]


# == adamw_step: wrong, neither moment is corrected
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    wd = weight_decay if p.ndim >= 2 else 0
    return p - lr * wd * p - lr * m / (np.sqrt(v) + eps), m, v


# == adamw_step: wrong, biases shrink, too
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * p), m, v


# == adamw_step: wrong, that is Adam with an L2 penalty
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    if p.ndim >= 2:
        g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return p - lr * m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps), m, v


# == adamw_step: wrong, ε stands under the root
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    if p.ndim >= 2:
        p = p - lr * weight_decay * p
    return p - lr * (m / (1 - beta1**step)) / np.sqrt(v / (1 - beta2**step) + eps), m, v


# == adamw_step: wrong, the corrected one is returned
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = (beta1 * m + (1 - beta1) * g) / (1 - beta1**step)
    v = (beta2 * v + (1 - beta2) * g**2) / (1 - beta2**step)
    if p.ndim >= 2:
        p = (1 - lr * weight_decay) * p
    return p - lr * m / (np.sqrt(v) + eps), m, v


# == adamw_step: wrong, the gradient is not squared
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g
    if p.ndim >= 2:
        p = (1 - lr * weight_decay) * p
    return p - lr * m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps), m, v


# == adamw_step: wrong, the two shares are exchanged
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = (1 - beta1) * m + beta1 * g
    v = beta2 * v + (1 - beta2) * g**2
    if p.ndim >= 2:
        p = (1 - lr * weight_decay) * p
    return p - lr * m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps), m, v


# == adamw_step: wrong, this is a sum, not a mean
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + g
    v = beta2 * v + (1 - beta2) * g**2
    if p.ndim >= 2:
        p = (1 - lr * weight_decay) * p
    return p - lr * m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps), m, v


# == adamw_step: wrong, by the old m and v
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    if p.ndim >= 2:
        p = (1 - lr * weight_decay) * p
    p = p - lr * m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return p, beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2


# == adamw_step: wrong, the corrections use t − 1
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    t = step - 1
    if p.ndim >= 2:
        p = (1 - lr * weight_decay) * p
    return p - lr * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps), m, v


# == adamw_step: wrong, the weight decay is not multiplied by the learning rate
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    if p.ndim >= 2:
        p = p - weight_decay * p
    return p - lr * m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps), m, v


# == adamw_step: wrong, it changes its argument p and m and v
def adamw_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay):
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g**2
    if p.ndim >= 2:
        p *= 1 - lr * weight_decay
    p -= lr * m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return p, m, v


# == fit_lora: right, by einsum, one factor after the other in each step
def fit_lora(x, target, W, r, steps, lr, rng):
    N, n_in = x.shape
    A, B = rng.normal(0, 1 / np.sqrt(n_in), (r, n_in)), np.zeros((len(W), r))
    lacks = target - np.einsum("ni,oi->no", x, W)
    for _ in range(steps):
        B -= lr * np.einsum("no,ni,ri->or", x @ A.T @ B.T - lacks, x, A) / N
        A -= lr * np.einsum("no,or,ni->ri", x @ A.T @ B.T - lacks, B, x) / N
    return A, B


# == fit_lora: right, through the gradient of the whole weight, and with A at zero
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = np.zeros((r, x.shape[1])), rng.normal(size=(W.shape[0], r)) / W.shape[0] ** 0.5
    gram, cross = x.T @ x / len(x), target.T @ x / len(x)
    for _ in range(steps):
        dW = (W + B @ A) @ gram - cross
        A, B = A - lr * B.T @ dW, B - lr * dW @ A.T
    return {"B": B, "A": A}


# == fit_lora: right, with the fresh optimiser and a rate that falls
def fit_lora(x, target, W, r, steps, lr, rng):
    limit = 1 / np.sqrt(x.shape[1])
    p = {"A": rng.uniform(-limit, limit, (r, x.shape[1])), "B": np.zeros((len(W), r))}
    m = {k: np.zeros_like(a) for k, a in p.items()}
    v = {k: np.zeros_like(a) for k, a in p.items()}
    for t in range(1, steps + 1):
        dy = (x @ (W + p["B"] @ p["A"]).T - target) / len(x)
        g = {"B": dy.T @ (x @ p["A"].T), "A": (dy @ p["B"]).T @ x}
        rate = lr * (1 - (t - 1) / steps)
        for k in p:
            m[k] = 0.9 * m[k] + 0.1 * g[k]
            v[k] = 0.99 * v[k] + 0.01 * g[k] ** 2
            p[k] = p[k] - rate * (m[k] / (1 - 0.9**t)) / (np.sqrt(v[k] / (1 - 0.99**t)) + 1e-8)
    return p["A"], p["B"]


# == fit_lora: right, without a single step, from the singular values
def fit_lora(x, target, W, r, steps, lr, rng):
    lacks = target - x @ W.T
    U, sigma, Vt = np.linalg.svd(lacks, full_matrices=False)
    A = np.linalg.lstsq(x, U[:, :r] * sigma[:r], rcond=None)[0].T
    return A, Vt[:r].T


# == fit_lora: wrong, both are zero
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = np.zeros((r, x.shape[1])), np.zeros((len(W), r))
    for _ in range(steps):
        dy = (x @ W.T + x @ A.T @ B.T - target) / len(x)
        A, B = A - lr * (dy @ B).T @ x, B - lr * dy.T @ (x @ A.T)
    return A, B


# == fit_lora: wrong, the best B for this A
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = rng.uniform(-1, 1, (r, x.shape[1])) / np.sqrt(x.shape[1]), np.zeros((len(W), r))
    u = x @ A.T
    for _ in range(steps):
        dy = (x @ W.T + u @ B.T - target) / len(x)
        B = B - lr * dy.T @ u
    return A, B


# == fit_lora: wrong, x Wᵀ was not there in training
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = rng.uniform(-1, 1, (r, x.shape[1])) / np.sqrt(x.shape[1]), np.zeros((len(W), r))
    for _ in range(steps):
        dy = (x @ A.T @ B.T - target) / len(x)
        A, B = A - lr * (dy @ B).T @ x, B - lr * dy.T @ (x @ A.T)
    return A, B


# == fit_lora: wrong, the training has run away
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = rng.uniform(-1, 1, (r, x.shape[1])) / np.sqrt(x.shape[1]), np.zeros((len(W), r))
    for _ in range(steps):
        dy = x @ W.T + x @ A.T @ B.T - target
        A, B = A - lr * (dy @ B).T @ x, B - lr * dy.T @ (x @ A.T)
    return A, B


# == fit_lora: wrong, the training has run away
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = rng.uniform(-1, 1, (r, x.shape[1])) / np.sqrt(x.shape[1]), np.zeros((len(W), r))
    for _ in range(steps):
        dy = (target - x @ W.T - x @ A.T @ B.T) / len(x)
        A, B = A - lr * (dy @ B).T @ x, B - lr * dy.T @ (x @ A.T)
    return A, B


# == fit_lora: wrong, the right one times 2
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = rng.uniform(-1, 1, (r, x.shape[1])) / np.sqrt(x.shape[1]), np.zeros((len(W), r))
    s = 0.5
    for _ in range(2 * steps):
        dy = (x @ W.T + s * x @ A.T @ B.T - target) / len(x)
        A, B = A - lr * s * (dy @ B).T @ x, B - lr * s * dy.T @ (x @ A.T)
    return A, B


# == fit_lora: wrong, It would still fall
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = rng.uniform(-1, 1, (r, x.shape[1])) / np.sqrt(x.shape[1]), np.zeros((len(W), r))
    for _ in range(steps):
        dy = (x @ W.T + x @ A.T @ B.T - target) / target.size
        A, B = A - lr * (dy @ B).T @ x, B - lr * dy.T @ (x @ A.T)
    return A, B


# == fit_lora: wrong, it changes its argument W
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = rng.uniform(-1, 1, (r, x.shape[1])) / np.sqrt(x.shape[1]), np.zeros((len(W), r))
    for _ in range(steps):
        dy = (x @ W.T + x @ A.T @ B.T - target) / len(x)
        W -= lr * dy.T @ x
        A, B = A - lr * (dy @ B).T @ x, B - lr * dy.T @ (x @ A.T)
    return A, B


# == fit_lora: wrong, A has shape
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = rng.uniform(-1, 1, (x.shape[1], r)) / np.sqrt(x.shape[1]), np.zeros((r, len(W)))
    for _ in range(steps):
        dy = (x @ W.T + x @ A @ B - target) / len(x)
        A, B = A - lr * x.T @ (dy @ B.T), B - lr * (x @ A).T @ dy
    return A, B
