"""Attempts at exercise set 03: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == centred_difference: right, with a unit array for each element
def centred_difference(f, x, h):
    grad = []
    for n in range(x.size):
        e = np.zeros(x.size)
        e[n] = h
        e = e.reshape(x.shape)
        grad.append((f(x + e) - f(x - e)) / (2 * h))
    return np.array(grad).reshape(x.shape)

# == centred_difference: wrong, grad[place] lacks the factor 2
def centred_difference(f, x, h):
    grad = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[place] += h
        below[place] -= h
        grad[place] = (f(above) - f(below)) / h
    return grad

# == linear_backward: right, by einsum
def linear_backward(dy, x, W):
    dx = np.einsum("no,oi->ni", dy, W)
    dW = np.einsum("no,ni->oi", dy, x)
    db = np.einsum("no->o", dy)
    return dx, dW, db

# == linear_backward: wrong, it is the correct value divided by N
def linear_backward(dy, x, W):
    return dy @ W, dy.T @ x / len(x), dy.sum(axis=0)

# == gelu_backward: right, through the logistic function
def gelu_backward(dy, x):
    u = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    g = 1 / (1 + np.exp(-2 * u))
    du = np.sqrt(2 / np.pi) * (1 + 0.134145 * x**2)
    return dy * g * (1 + 2 * x * (1 - g) * du)

# == gelu_backward: wrong, dx lacks the term x * slope_of_gate
def gelu_backward(dy, x):
    return dy * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

# == softmax_backward: right, by einsum
def softmax_backward(dp, p):
    return p * dp - np.einsum("ni,nj,nj->ni", p, p, dp)

# == softmax_backward: wrong, dx lacks the term np.sum(dp * p, axis=-1, keepdims=True)
def softmax_backward(dp, p):
    return p * dp

# == cross_entropy_backward: right, back through the logarithm and the softmax
def cross_entropy_backward(logits, targets):
    p = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    dp = np.zeros(p.shape)
    for n, t in enumerate(targets):
        dp[n, t] = -1 / p[n, t] / len(p)
    return p * (dp - (dp * p).sum(axis=1, keepdims=True))

# == cross_entropy_backward: wrong, its sign is reversed
def cross_entropy_backward(logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return (np.eye(logits.shape[1])[targets] - p) / len(p)

# == layer_norm_backward: right, sums with C in one place
def layer_norm_backward(dy, x_hat, inv_std, w):
    C = dy.shape[-1]
    g = dy * w
    dx = C * g - g.sum(-1)[:, None] - x_hat * np.einsum("nc,nc->n", g, x_hat)[:, None]
    dx *= inv_std / C
    return [dx, np.diag(dy.T @ x_hat), np.add.reduce(dy)]

# == layer_norm_backward: wrong, dx lacks the term through_variance, and dx lacks the term (dy * w).mean(
def layer_norm_backward(dy, x_hat, inv_std, w):
    return dy * w * inv_std, (dy * x_hat).sum(axis=0), dy.sum(axis=0)

# == centred_difference: wrong, it is 0 for all inputs
def centred_difference(f, x, h):
    grad = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        plus = minus = x.copy()
        plus[i] = plus[i] + h
        minus[i] = minus[i] - h
        grad[i] = (f(plus) - f(minus)) / (2 * h)
    return grad
