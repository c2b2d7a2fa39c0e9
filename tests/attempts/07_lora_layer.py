"""Attempts at exercise set 07: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == merge: right, as a sum of outer products
def merge(W, A, B, s):
    return W + sum(np.outer(s * B[:, k], A[k]) for k in range(A.shape[0]))

# == merge: wrong, W_merged lacks the factor s
def merge(W, A, B, s):
    return W + np.matmul(B, A)

# == lora_forward: right, by einsum
def lora_forward(x, W, b, A, B, s):
    base = np.einsum("ni,oi->no", x, W) + b
    return base + s * np.einsum("ni,ri,or->no", x, A, B)

# == lora_forward: wrong, y lacks the factor s
def lora_forward(x, W, b, A, B, s):
    return x @ W.T + b + (x @ A.T) @ B.T

# == lora_init: right, row by row
def lora_init(n_out, n_in, r, rng):
    limit = np.sqrt(3.0 / n_in) * np.sqrt(1.0 / 3.0)
    rows = [rng.uniform(-limit, limit, n_in) for _ in range(r)]
    return np.stack(rows), np.array([[0.0] * r for _ in range(n_out)])

# == lora_init: wrong, it is zero: if both factors are zero, so are both gradients, and training changes nothing
def lora_init(n_out, n_in, r, rng):
    return np.zeros((r, n_in)), np.zeros((n_out, r))

# == lora_backward: right, by einsum
def lora_backward(dy, x, W, A, B, s):
    dx = np.einsum("no,oi->ni", dy, W + s * np.einsum("or,ri->oi", B, A))
    dA = s * np.einsum("no,or,ni->ri", dy, B, x)
    dB = s * np.einsum("no,ni,ri->or", dy, x, A)
    return dx, dA, dB

# == lora_backward: wrong, dx lacks the term du @ A
def lora_backward(dy, x, W, A, B, s):
    du = s * dy @ B
    return dy @ W, du.T @ x, s * dy.T @ (x @ A.T)

# == merge: wrong, it is correct for s / r instead of s
def merge(W, A, B, s):
    r = A.shape[0]
    return W + s / r * (B @ A)
