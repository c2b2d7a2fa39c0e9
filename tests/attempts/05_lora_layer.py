"""Attempts at exercise set 05. Each begins with `# ==`, the item, and what it is: right; or wrong, and after it words
of the diagnosis that it has to get."""

# == merge: right, by loops
def merge(W, A, B, s):
    merged = W.copy()
    for o in range(W.shape[0]):
        for i in range(W.shape[1]):
            merged[o, i] += s * sum(B[o, k] * A[k, i] for k in range(len(A)))
    return merged


# == merge: right, as a sum of outer products
def merge(W, A, B, s):
    return W + sum(np.outer(s * B[:, k], A[k]) for k in range(A.shape[0]))


# == merge: wrong, s is missing
def merge(W, A, B, s):
    return W + np.matmul(B, A)


# == merge: wrong, this is unmerging
def merge(W, A, B, s):
    return W - s * (B @ A)


# == merge: wrong, ΔW alone
def merge(W, A, B, s):
    delta = s * (B @ A)
    return delta


# == merge: wrong, the scale is applied to W too
def merge(W, A, B, s):
    return (W + B @ A) * s


# == merge: wrong, it changes its argument W
def merge(W, A, B, s):
    W += s * (B @ A)
    return W


# == lora_forward: right, by einsum
def lora_forward(x, W, b, A, B, s):
    base = np.einsum("ni,oi->no", x, W) + b
    return base + s * np.einsum("ni,ri,or->no", x, A, B)


# == lora_forward: right, the weight formed after all
def lora_forward(x, W, b, A, B, s):
    return (W + s * B @ A).dot(x.T).T + b[None, :]


# == lora_forward: wrong, the scale s = α/r is missing
def lora_forward(x, W, b, A, B, s):
    return x @ W.T + b + (x @ A.T) @ B.T


# == lora_forward: wrong, the adapter's path is missing
def lora_forward(x, W, b, A, B, s):
    return x @ W.T + b


# == lora_forward: wrong, multiplied by α and not by α/r
def lora_forward(x, W, b, A, B, s):
    alpha = s * A.shape[0]
    return x @ W.T + b + alpha * (x @ A.T) @ B.T


# == lora_forward: wrong, the bias is missing
def lora_forward(x, W, b, A, B, s):
    return x @ (W + s * B @ A).T


# == lora_forward: wrong, the scale multiplies the whole output
def lora_forward(x, W, b, A, B, s):
    y = x @ W.T + b
    y = y + x @ A.T @ B.T
    return s * y


# == lora_forward: wrong, it raises ValueError
def lora_forward(x, W, b, A, B, s):
    return x @ W + b + s * (x @ A) @ B


# == lora_init: right, by another method of the generator
def lora_init(n_out, n_in, r, rng):
    A = (2.0 * rng.random((r, n_in)) - 1.0) / n_in**0.5
    return A, np.zeros(shape=(n_out, r))


# == lora_init: right, row by row
def lora_init(n_out, n_in, r, rng):
    limit = np.sqrt(3.0 / n_in) * np.sqrt(1.0 / 3.0)
    rows = [rng.uniform(-limit, limit, n_in) for _ in range(r)]
    return np.stack(rows), np.array([[0.0] * r for _ in range(n_out)])


# == lora_init: wrong, the adapted model would not start as the base
def lora_init(n_out, n_in, r, rng):
    bound = 1 / np.sqrt(n_in)
    return rng.uniform(-bound, bound, (r, n_in)), rng.uniform(-bound, bound, (n_out, r))


# == lora_init: wrong, with both factors at zero
def lora_init(n_out, n_in, r, rng):
    return np.zeros((r, n_in)), np.zeros((n_out, r))


# == lora_init: wrong, it looks like ±1/in
def lora_init(n_out, n_in, r, rng):
    return rng.uniform(-1 / n_in, 1 / n_in, (r, n_in)), np.zeros((n_out, r))


# == lora_init: wrong, on both sides of 0
def lora_init(n_out, n_in, r, rng):
    return rng.uniform(0, 1 / np.sqrt(n_in), (r, n_in)), np.zeros((n_out, r))


# == lora_init: wrong, expected (r, in)
def lora_init(n_out, n_in, r, rng):
    bound = 1 / np.sqrt(n_in)
    return rng.uniform(-bound, bound, (n_in, r)), np.zeros((r, n_out))


# == lora_init: wrong, it does not come from rng
def lora_init(n_out, n_in, r, rng):
    bound = 1 / np.sqrt(n_in)
    return np.random.default_rng(3).uniform(-bound, bound, (r, n_in)), np.zeros((n_out, r))


# == lora_init: wrong, it has dtype int64, expected float64
def lora_init(n_out, n_in, r, rng):
    bound = 1 / np.sqrt(n_in)
    return rng.uniform(-bound, bound, (r, n_in)), np.zeros((n_out, r), dtype=np.int64)


# == lora_backward: right, by einsum
def lora_backward(dy, x, W, A, B, s):
    dx = np.einsum("no,oi->ni", dy, W + s * np.einsum("or,ri->oi", B, A))
    dA = s * np.einsum("no,or,ni->ri", dy, B, x)
    dB = s * np.einsum("no,ni,ri->or", dy, x, A)
    return dx, dA, dB


# == lora_backward: right, through the gradient of ΔW
def lora_backward(dy, x, W, A, B, s):
    dW = np.zeros_like(W)
    for dy_n, x_n in zip(dy, x):
        dW += np.outer(dy_n, x_n)
    return [dy @ (W + s * B @ A), s * B.T @ dW, s * dW @ A.T]


# == lora_backward: wrong, the right value divided by α/r
def lora_backward(dy, x, W, A, B, s):
    u = x @ A.T
    du = dy @ B
    return dy @ W + s * du @ A, du.T @ x, s * dy.T @ u


# == lora_backward: wrong, dx lacks the adapter's path
def lora_backward(dy, x, W, A, B, s):
    du = s * dy @ B
    return dy @ W, du.T @ x, s * dy.T @ (x @ A.T)


# == lora_backward: wrong, divided by N (the number of rows)
def lora_backward(dy, x, W, A, B, s):
    du = s * dy @ B
    return dy @ W + du @ A, du.T @ x / len(x), s * dy.T @ (x @ A.T)


# == lora_backward: wrong, sign is reversed
def lora_backward(dy, x, W, A, B, s):
    du = s * dy @ B
    return dy @ W + du @ A, du.T @ x, -s * dy.T @ (x @ A.T)


# == lora_backward: wrong, it is transposed
def lora_backward(dy, x, W, A, B, s):
    du = s * dy @ B
    return dy @ W + du @ A, x.T @ du, s * dy.T @ (x @ A.T)


# == lora_backward: wrong, multiplied by s twice
def lora_backward(dy, x, W, A, B, s):
    du = s * dy @ B
    return dy @ W + s * du @ A, du.T @ x, s * dy.T @ (x @ A.T)


# == lora_backward: wrong, expected dx, dA, dB
def lora_backward(dy, x, W, A, B, s):
    du = s * dy @ B
    return du.T @ x, s * dy.T @ (x @ A.T)
