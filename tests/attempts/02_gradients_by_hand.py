"""Attempts at exercise set 02. Each begins with `# ==`, the item, and what it is: right; or wrong, and after it words
of the diagnosis that it has to get."""

# == centred_difference: right, with a unit array for each element
def centred_difference(f, x, h):
    grad = []
    for n in range(x.size):
        e = np.zeros(x.size)
        e[n] = h
        e = e.reshape(x.shape)
        grad.append((f(x + e) - f(x - e)) / (2 * h))
    return np.array(grad).reshape(x.shape)


# == centred_difference: right, the mean of forward and backward difference
def centred_difference(f, x, h):
    here = f(x)
    grad = np.empty(x.shape)
    it = np.nditer(x, flags=["multi_index"])
    for _ in it:
        right, left = np.array(x), np.array(x)
        right[it.multi_index] += h
        left[it.multi_index] -= h
        forward = (f(right) - here) / h
        backward = (here - f(left)) / h
        grad[it.multi_index] = (forward + backward) / 2
    return grad


# == centred_difference: right, in place through a flat view of its own copy
def centred_difference(f, x, h):
    x = np.array(x)
    flat, grad = x.reshape(-1), np.zeros(x.size)
    for n, value in enumerate(flat.tolist()):
        for side in (+1, -1):
            flat[n] = value + side * h
            grad[n] += side * f(x)
        flat[n] = value
    return grad.reshape(x.shape) / h / 2


# == centred_difference: wrong, this is the forward difference
def centred_difference(f, x, h):
    grad = np.zeros_like(x)
    y = f(x)
    for place in np.ndindex(x.shape):
        z = x.copy()
        z[place] += h
        grad[place] = (f(z) - y) / h
    return grad


# == centred_difference: wrong, it raises ValueError
def centred_difference(f, x, h):
    grad = np.zeros_like(x)
    rows, columns = x.shape  # there may be three axes
    for i in range(rows):
        for j in range(columns):
            above, below = x.copy(), x.copy()
            above[i, j] += h
            below[i, j] -= h
            grad[i, j] = (f(above) - f(below)) / (2 * h)
    return grad


# == centred_difference: wrong, the right value times 2
def centred_difference(f, x, h):
    grad = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[place] += h
        below[place] -= h
        grad[place] = (f(above) - f(below)) / h
    return grad


# == centred_difference: wrong, the right value divided by 2
def centred_difference(f, x, h):
    grad = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[place] += h
        below[place] -= h
        grad[place] = (f(above) - f(below)) / (4 * h)
    return grad


# == centred_difference: wrong, one of the two values is taken at x itself
def centred_difference(f, x, h):
    x = x.copy()
    grad = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        x[place] += h
        above = f(x)
        x[place] -= h
        below = f(x)
        grad[place] = (above - below) / (2 * h)
    return grad


# == centred_difference: wrong, an element is not put back
def centred_difference(f, x, h):
    x = x.copy()
    grad = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        old = x[place]
        x[place] = old + h
        above = f(x)
        x[place] = old - h
        below = f(x)
        grad[place] = (above - below) / (2 * h)
    return grad


# == centred_difference: wrong, it changes its argument x
def centred_difference(f, x, h):
    grad = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        x[place] += h
        above = f(x)
        x[place] -= 2 * h
        below = f(x)
        x[place] += h
        grad[place] = (above - below) / (2 * h)
    return grad


# == centred_difference: wrong, a whole row is moved at once
def centred_difference(f, x, h):
    grad = np.zeros_like(x)
    for n in range(len(x)):
        above, below = x.copy(), x.copy()
        above[n] += h
        below[n] -= h
        grad[n] = (f(above) - f(below)) / (2 * h)
    return grad


# == centred_difference: wrong, the step is another one
def centred_difference(f, x, h=1e-6):
    h = 1e-6
    grad = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[place] = h
        grad[place] = (f(x + e) - f(x - e)) / (2 * h)
    return grad


# == linear_backward: right, by einsum
def linear_backward(dy, x, W):
    dx = np.einsum("no,oi->ni", dy, W)
    dW = np.einsum("no,ni->oi", dy, x)
    db = np.einsum("no->o", dy)
    return dx, dW, db


# == linear_backward: right, by loops over every product
def linear_backward(dy, x, W):
    dx, dW, db = np.zeros_like(x), np.zeros_like(W), np.zeros(len(W))
    for n in range(dy.shape[0]):
        for o in range(dy.shape[1]):
            db[o] += dy[n, o]
            for i in range(x.shape[1]):
                dx[n, i] += dy[n, o] * W[o, i]
                dW[o, i] += dy[n, o] * x[n, i]
    return {"dW": dW, "db": db, "dx": dx}


# == linear_backward: right, the bias as a column of ones
def linear_backward(dy, x, W):
    with_one = np.hstack([x, np.ones((len(x), 1))])
    both = np.tensordot(dy, with_one, axes=(0, 0))
    return W.T.dot(dy.T).T, both[:, :-1], both[:, -1]


# == linear_backward: wrong, it is transposed
def linear_backward(dy, x, W):
    return dy @ W, x.T @ dy, dy.sum(axis=0)


# == linear_backward: wrong, the right value divided by N (the rows)
def linear_backward(dy, x, W):
    return dy @ W, dy.T @ x / len(x), dy.sum(axis=0)


# == linear_backward: wrong, divided by N (the rows)
def linear_backward(dy, x, W):
    return dy @ W, dy.T @ x, dy.mean(axis=0)


# == linear_backward: wrong, db does not depend on dy
def linear_backward(dy, x, W):
    return dy @ W, dy.T @ x, np.ones_like(dy).sum(axis=0)


# == linear_backward: wrong, dW is that of the last row alone
def linear_backward(dy, x, W):
    for n in range(len(x)):
        dW = np.outer(dy[n], x[n])
    return dy @ W, dW, dy.sum(axis=0)


# == linear_backward: wrong, dW is summed over the rows before the product
def linear_backward(dy, x, W):
    db = dy.sum(axis=0)
    return dy @ W, db[:, None] * x.sum(axis=0), db


# == linear_backward: wrong, summed over rows and outputs
def linear_backward(dy, x, W):
    return dy @ W, dy.T @ x, np.repeat(dy.sum(), len(W))


# == linear_backward: wrong, dx does not depend on dy
def linear_backward(dy, x, W):
    dx = np.tile(W.sum(axis=0), (len(x), 1))
    return dx, dy.T @ x, dy.sum(axis=0)


# == linear_backward: wrong, expected dx, dW, db
def linear_backward(dy, x, W):
    return dy @ W, dy.T @ x


# == gelu_backward: right, through the logistic function
def gelu_backward(dy, x):
    u = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    g = 1 / (1 + np.exp(-2 * u))
    du = np.sqrt(2 / np.pi) * (1 + 0.134145 * x**2)
    return dy * g * (1 + 2 * x * (1 - g) * du)


# == gelu_backward: right, element by element with math
def gelu_backward(dy, x):
    import math

    dx = dy.copy()
    a = math.sqrt(2 / math.pi)
    for place, value in np.ndenumerate(x):
        u = a * value * (1 + 0.044715 * value * value)
        y_slope = 0.5 * (1 + math.tanh(u)) + 0.5 * value / math.cosh(u) ** 2 * a * (1 + 3 * 0.044715 * value**2)
        dx[place] *= y_slope
    return dx


# == gelu_backward: right, in place on arrays of its own
def gelu_backward(dy, x):
    du = np.square(x)
    du *= 3 * 0.044715
    du += 1
    du *= (2 / np.pi) ** 0.5
    t = np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * np.power(x, 3)))
    slope = 0.5 + t / 2
    slope += x * (1 - t) * (1 + t) * du / 2
    slope *= dy
    return slope


# == gelu_backward: wrong, the second term of the product rule is missing
def gelu_backward(dy, x):
    return dy * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


# == gelu_backward: wrong, the slope of u is missing
def gelu_backward(dy, x):
    t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t**2))


# == gelu_backward: wrong, x³ has lost its factor 3
def gelu_backward(dy, x):
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c * (1 + 0.044715 * x**2))


# == gelu_backward: wrong, √(2/π) is missing
def gelu_backward(dy, x):
    t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * (1 + 3 * 0.044715 * x**2))


# == gelu_backward: wrong, in the slope of tanh, the square is missing
def gelu_backward(dy, x):
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t) * c * (1 + 3 * 0.044715 * x**2))


# == gelu_backward: wrong, the upstream gradient dy is missing
def gelu_backward(dy, x):
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c * (1 + 3 * 0.044715 * x**2)


# == gelu_backward: wrong, the ½ of the gate is missing in the second term
def gelu_backward(dy, x):
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    return dy * (0.5 * (1 + t) + x * (1 - t**2) * c * (1 + 3 * 0.044715 * x**2))


# == gelu_backward: wrong, dy is multiplied by y, not by the slope
def gelu_backward(dy, x):
    return dy * 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


# == softmax_backward: right, with the full matrix of derivatives of each row
def softmax_backward(dp, p):
    dx = []
    for dp_n, p_n in zip(dp, p):
        J = np.diag(p_n) - np.outer(p_n, p_n)
        dx.append(J @ dp_n)
    return np.array(dx)


# == softmax_backward: right, by einsum
def softmax_backward(dp, p):
    return p * dp - np.einsum("ni,nj,nj->ni", p, p, dp)


# == softmax_backward: right, in place on a copy
def softmax_backward(dp, p):
    dx = dp.copy()
    dx *= p
    dx -= p * dx.sum(axis=1)[:, None]
    return dx


# == softmax_backward: wrong, through the sum, is missing
def softmax_backward(dp, p):
    return p * dp


# == softmax_backward: wrong, each p_i is derived by its own x_i alone
def softmax_backward(dp, p):
    return dp * p * (1 - p)


# == softmax_backward: wrong, the factor p_i in front is missing
def softmax_backward(dp, p):
    return dp - np.sum(dp * p, axis=1, keepdims=True)


# == softmax_backward: wrong, p is missing inside the sum
def softmax_backward(dp, p):
    return p * (dp - np.sum(dp, axis=1, keepdims=True))


# == softmax_backward: wrong, the sum runs down the columns
def softmax_backward(dp, p):
    return p * (dp - (dp * p).sum(axis=0))


# == softmax_backward: wrong, the sum runs over all rows at once
def softmax_backward(dp, p):
    return p * (dp - (dp * p).sum())


# == softmax_backward: wrong, a mean stands where a sum belongs
def softmax_backward(dp, p):
    return p * (dp - np.mean(dp * p, axis=-1, keepdims=True))


# == softmax_backward: wrong, the gradient of log softmax
def softmax_backward(dp, p):
    return dp - p * dp.sum(axis=-1, keepdims=True)


# == softmax_backward: wrong, it raises ValueError
def softmax_backward(dp, p):
    return p * (dp - (dp * p).sum(axis=1))


# == cross_entropy_backward: right, with an array of zeros and ones
def cross_entropy_backward(logits, targets):
    N, V = logits.shape
    onehot = (np.arange(V) == targets[:, None]).astype(float)
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    return (p - onehot) / N


# == cross_entropy_backward: right, row by row from the logarithm of the sum
def cross_entropy_backward(logits, targets):
    rows = []
    for x, t in zip(logits, targets):
        log_sum = np.logaddexp.reduce(x)
        row = np.exp(x - log_sum)
        row[t] = np.expm1(x[t] - log_sum)  # p − 1, exact even where p is near 1
        rows.append(row / len(logits))
    return np.stack(rows)


# == cross_entropy_backward: right, back through the logarithm and the softmax
def cross_entropy_backward(logits, targets):
    p = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    dp = np.zeros(p.shape)
    for n, t in enumerate(targets):
        dp[n, t] = -1 / p[n, t] / len(p)
    return p * (dp - (dp * p).sum(axis=1, keepdims=True))


# == cross_entropy_backward: wrong, times N (the rows)
def cross_entropy_backward(logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p[np.arange(len(p)), targets] -= 1
    return p


# == cross_entropy_backward: wrong, divided by K (the classes)
def cross_entropy_backward(logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p[np.arange(len(p)), targets] -= 1
    return p / p.size


# == cross_entropy_backward: wrong, divided by K, the classes, not by N
def cross_entropy_backward(logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p[np.arange(len(p)), targets] -= 1
    return p / p.shape[1]


# == cross_entropy_backward: wrong, at all rows' targets
def cross_entropy_backward(logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p[:, targets] -= 1
    return p / len(p)


# == cross_entropy_backward: wrong, with respect to the probabilities
def cross_entropy_backward(logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    d = np.zeros_like(p)
    n = np.arange(len(p))
    d[n, targets] = -1 / p[n, targets]
    return d / len(p)


# == cross_entropy_backward: wrong, its sign is reversed
def cross_entropy_backward(logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return (np.eye(logits.shape[1])[targets] - p) / len(p)


# == cross_entropy_backward: wrong, the logits stand where their softmax belongs
def cross_entropy_backward(logits, targets):
    d = logits.copy()
    d[np.arange(len(d)), targets] -= 1
    return d / len(d)


# == cross_entropy_backward: wrong, the target's own term is missing
def cross_entropy_backward(logits, targets):
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True) / len(p)


# == cross_entropy_backward: wrong, the softmax runs down the columns
def cross_entropy_backward(logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(axis=0)
    p[np.arange(len(p)), targets] -= 1
    return p / len(p)


# == cross_entropy_backward: wrong, all entries but the target's are 0
def cross_entropy_backward(logits, targets):
    n = np.arange(len(logits))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    d = np.zeros_like(logits)
    d[n, targets] = p[n, targets] - 1
    return d / len(d)


# == layer_norm_backward: right, by the row's matrix of derivatives
def layer_norm_backward(dy, x_hat, inv_std, w):
    C = len(w)
    dx = np.empty_like(dy)
    for n in range(len(dy)):
        J = (np.eye(C) - 1 / C - np.outer(x_hat[n], x_hat[n]) / C) * inv_std[n]
        dx[n] = J.T @ (dy[n] * w)
    return dx, (dy * x_hat).sum(0), dy.sum(0)


# == layer_norm_backward: right, step by step through variance and mean
def layer_norm_backward(dy, x_hat, inv_std, w):
    N, C = dy.shape
    centred = x_hat / inv_std
    dx_hat = w * dy
    dinv = np.sum(dx_hat * centred, axis=1, keepdims=True)
    dvar = dinv * -0.5 * inv_std**3
    dcentred = dx_hat * inv_std + dvar * 2 * centred / C
    dmean = -dcentred.sum(axis=1, keepdims=True)
    return dcentred + dmean / C, np.einsum("nc,nc->c", dy, x_hat), np.ones(N) @ dy


# == layer_norm_backward: right, sums with C in one place
def layer_norm_backward(dy, x_hat, inv_std, w):
    C = dy.shape[-1]
    g = dy * w
    dx = C * g - g.sum(-1)[:, None] - x_hat * np.einsum("nc,nc->n", g, x_hat)[:, None]
    dx *= inv_std / C
    return [dx, np.diag(dy.T @ x_hat), np.add.reduce(dy)]


# == layer_norm_backward: wrong, the mean's term of layer norm is missing
def layer_norm_backward(dy, x_hat, inv_std, w):
    g = dy * w
    dx = inv_std * (g - x_hat * (g * x_hat).mean(axis=-1, keepdims=True))
    return dx, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, the variance's term of layer norm is missing
def layer_norm_backward(dy, x_hat, inv_std, w):
    g = dy * w
    dx = inv_std * (g - g.mean(axis=-1, keepdims=True))
    return dx, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, only the direct way is there
def layer_norm_backward(dy, x_hat, inv_std, w):
    return dy * w * inv_std, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, w is missing
def layer_norm_backward(dy, x_hat, inv_std, w):
    dx = inv_std * (dy - dy.mean(-1, keepdims=True) - x_hat * (dy * x_hat).mean(-1, keepdims=True))
    return dx, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, missing inside the means
def layer_norm_backward(dy, x_hat, inv_std, w):
    dx = inv_std * w * (dy - dy.mean(-1, keepdims=True) - x_hat * (dy * x_hat).mean(-1, keepdims=True))
    return dx, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, the means run down the columns
def layer_norm_backward(dy, x_hat, inv_std, w):
    g = dy * w
    dx = inv_std * (g - g.mean(0) - x_hat * (g * x_hat).mean(0))
    return dx, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, sums stand where means belong
def layer_norm_backward(dy, x_hat, inv_std, w):
    g = dy * w
    dx = inv_std * (g - g.sum(-1, keepdims=True) - x_hat * (g * x_hat).sum(-1, keepdims=True))
    return dx, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, the variance's term is half as large
def layer_norm_backward(dy, x_hat, inv_std, w):
    C = len(w)
    g = dy * w
    dvar = np.sum(g * x_hat / inv_std, axis=1, keepdims=True) * -0.5 * inv_std**3
    dx = g * inv_std + dvar * (x_hat / inv_std) / C - (g * inv_std).mean(axis=1, keepdims=True)
    return dx, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, C − 1 stands in the variance's term
def layer_norm_backward(dy, x_hat, inv_std, w):
    C = len(w)
    g = dy * w
    through_variance = x_hat * (g * x_hat).sum(-1, keepdims=True) / (C - 1)
    dx = inv_std * (g - g.sum(-1, keepdims=True) / C - through_variance)
    return dx, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, inv_std is missing
def layer_norm_backward(dy, x_hat, inv_std, w):
    g = dy * w
    dx = g - g.mean(-1, keepdims=True) - x_hat * (g * x_hat).mean(-1, keepdims=True)
    return dx, (dy * x_hat).sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, it is db
def layer_norm_backward(dy, x_hat, inv_std, w):
    g = dy * w
    dx = inv_std * (g - g.mean(-1, keepdims=True) - x_hat * (g * x_hat).mean(-1, keepdims=True))
    return dx, dy.sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, w stands in dw
def layer_norm_backward(dy, x_hat, inv_std, w):
    g = dy * w
    dx = inv_std * (g - g.mean(-1, keepdims=True) - x_hat * (g * x_hat).mean(-1, keepdims=True))
    return dx, (g * x_hat).sum(axis=0), dy.sum(axis=0)


# == layer_norm_backward: wrong, divided by N (the rows)
def layer_norm_backward(dy, x_hat, inv_std, w):
    g = dy * w
    dx = inv_std * (g - g.mean(-1, keepdims=True) - x_hat * (g * x_hat).mean(-1, keepdims=True))
    return dx, (dy * x_hat).sum(axis=0), dy.mean(axis=0)
