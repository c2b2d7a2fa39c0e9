"""Attempts at exercise set 08: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == read_last: right, picked out by a product with zeros and ones
def read_last(h, lengths):
    last = np.arange(1, h.shape[1] + 1) == lengths[:, None]
    return np.einsum("bt,btc->bc", last, h)

# == read_last: wrong, last lacks the term lengths
def read_last(h, lengths):
    return h[:, -1, :]

# == accuracy: right, row by row
def accuracy(logits, labels):
    right = 0
    for row, label in zip(logits, labels):
        if all(row[label] >= row):
            right += 1
    return right / len(labels)

# == accuracy: wrong, accuracy has sum in place of mean
def accuracy(logits, labels):
    return np.sum(np.argmax(logits, axis=1) == labels)

# == standard_error: right, as a quotient of roots
def standard_error(accuracy, n):
    return (accuracy - accuracy**2) ** 0.5 / n**0.5

# == standard_error: wrong, error skips sqrt(variance / n)
def standard_error(accuracy, n):
    return accuracy * (1 - accuracy) / n

# == paired_difference: right, in plain Python
def paired_difference(hits_one, hits_other):
    d = [int(a) - int(b) for a, b in zip(hits_one, hits_other)]
    mean = sum(d) / len(d)
    return [mean, sum((x - mean) ** 2 for x in d) ** 0.5 / len(d)]

# == paired_difference: wrong, its sign is reversed
def paired_difference(hits_one, hits_other):
    d = hits_other.astype(int) - hits_one.astype(int)
    return d.mean(), d.std() / np.sqrt(len(d))

# == adamw_step: right, element by element
def adamw_step(p, g, mu, nu, step, lr, beta1, beta2, eps, weight_decay):
    new_p, new_mu, new_nu = np.empty(p.shape), np.empty(p.shape), np.empty(p.shape)
    for place in np.ndindex(p.shape):
        a = beta1 * mu[place] + (1 - beta1) * g[place]
        b = beta2 * nu[place] + (1 - beta2) * g[place] * g[place]
        q = p[place]
        if p.ndim > 1:
            q = q * (1 - lr * weight_decay)
        q = q - lr * (a / (1 - beta1**step)) / ((b / (1 - beta2**step)) ** 0.5 + eps)
        new_p[place], new_mu[place], new_nu[place] = q, a, b
    return new_p, new_mu, new_nu

# == adamw_step: wrong, shrink is 1 - lr * weight_decay regardless of p.ndim >= 2
def adamw_step(p, g, mu, nu, step, lr, beta1, beta2, eps, weight_decay):
    mu = beta1 * mu + (1 - beta1) * g
    nu = beta2 * nu + (1 - beta2) * g**2
    mu_hat, nu_hat = mu / (1 - beta1**step), nu / (1 - beta2**step)
    return p - lr * (mu_hat / (np.sqrt(nu_hat) + eps) + weight_decay * p), mu, nu

# == fit_lora: right, with both gradients from one point
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = rng.uniform(-1, 1, (r, W.shape[1])) / W.shape[1] ** 0.5, np.zeros((len(W), r))
    for _ in range(steps):
        dW = np.einsum("no,ni->oi", x @ (W + B @ A).T - target, x) / len(x)
        A, B = A - lr * B.T @ dW, B - lr * dW @ A.T
    return A, B

# == fit_lora: wrong, A and B are both zero: then both gradients are zero, and nothing ever moves
def fit_lora(x, target, W, r, steps, lr, rng):
    A, B = np.zeros((r, x.shape[1])), np.zeros((len(W), r))
    for _ in range(steps):
        dy = (x @ W.T + x @ A.T @ B.T - target) / len(x)
        A, B = A - lr * (dy @ B).T @ x, B - lr * dy.T @ (x @ A.T)
    return A, B

# == fit_lora: wrong, with 0 steps B is not zero
def fit_lora(x, target, W, r, steps, lr, rng):
    delta = np.linalg.lstsq(x, target - x @ W.T, rcond=None)[0].T
    U, sigma, Vt = np.linalg.svd(delta, full_matrices=False)
    return Vt[:r], U[:, :r] * sigma[:r]
