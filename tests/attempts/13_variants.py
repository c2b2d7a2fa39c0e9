"""Attempts at exercise set 13: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == rslora_scale: right, in powers
def rslora_scale(alpha, r):
    return alpha * r**-0.5, alpha * r**0.5

# == rslora_scale: wrong, alpha_lora lacks the factor r
def rslora_scale(alpha, r):
    return alpha / np.sqrt(r), alpha / np.sqrt(r)

# == first_change: right, with the matrix of products
def first_change(x, dy, A, s, lr):
    u = np.einsum("ni,ri->nr", x, A)
    dB = s * np.einsum("no,nr->or", dy, u)
    return -lr * s**2 * (u @ u.T) @ dy, -lr * s * np.einsum("nr,or->no", u, np.sign(dB))

# == first_change: wrong, by_descent lacks the factor s
def first_change(x, dy, A, s, lr):
    u = x @ A.T
    dB = dy.T @ u
    return s * u @ (-lr * dB).T, s * u @ (-lr * np.sign(dB)).T

# == lora_plus_moves: right, through the change of the weight
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    terms = -lr * B @ dA, -lr * ratio * dB @ A, lr**2 * ratio * dB @ dA
    return tuple(np.einsum("ni,oi->no", x, s * term) for term in terms)

# == lora_plus_moves: wrong, it is the correct value divided by ratio
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    return -lr * s * x @ dA.T @ B.T, -lr * s * x @ A.T @ dB.T, lr * lr * s * x @ dA.T @ dB.T

# == vera_backward: right, by einsum
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    dd = np.einsum("no,o,or,ri,ni->r", dy, lambda_b, B, A, x)
    db = np.einsum("no,or,r,ri,ni->o", dy, B, lambda_d, A, x)
    dx = np.einsum("no,oi->ni", dy, W) + np.einsum("no,o,or,r,ri->ni", dy, lambda_b, B, lambda_d, A)
    return [dx, dd, db]

# == vera_backward: wrong, dx lacks the term (lambda_d * dw) @ A
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    v = x @ A.T
    dw = (lambda_b * dy) @ B
    return dy @ W, np.sum(dw * v, axis=0), np.sum(dy * ((lambda_d * v) @ B.T), axis=0)

# == pissa_start: right, the rest from the weak directions
def pissa_start(W, r, s):
    U, S, Vt = np.linalg.svd(W)
    n = len(S)
    D = np.diag(np.sqrt(S[:r])) / np.sqrt(s)
    rest = np.einsum("ok,k,ki->oi", U[:, r:n], S[r:], Vt[r:n])
    return {"A": D @ Vt[:r], "B": U[:, :r] @ D, "W_rest": rest}

# == pissa_start: wrong, W_rest lacks the term s * B @ A
def pissa_start(W, r, s):
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    root = np.sqrt(S[:r] / s)
    return root[:, None] * Vt[:r], U[:, :r] * root, W.copy()

# == loftq_start: right, with the whole of σ in B and the adapter's part in a list
def loftq_start(W, quantise, r, s, rounds):
    parts = [0.0 * W]
    for _ in range(rounds):
        Q = quantise(W - parts[-1])
        U, S, Vt = np.linalg.svd(W - Q)
        A, B = Vt[:r], U[:, :r] @ np.diag(S[:r]) / s
        parts.append(s * (B @ A))
    return Q, A, B

# == loftq_start: wrong, Q lacks the term sBA
def loftq_start(W, quantise, r, s, rounds):
    for _ in range(rounds):
        Q = quantise(W)
        U, S, Vt = np.linalg.svd(W - Q, full_matrices=False)
        A, B = np.sqrt(S[:r, None] / s) * Vt[:r], U[:, :r] * np.sqrt(S[:r] / s)
    return Q, A, B

# == dora_forward: right, scaled after the products
def dora_forward(x, W, b, A, B, m, s):
    h = x @ W.T + s * (x @ A.T) @ B.T
    squares = np.einsum("oi,oi->o", W, W) + 2 * s * np.einsum("oi,or,ri->o", W, B, A)
    squares += s**2 * np.einsum("or,rq,oq->o", B, A @ A.T, B)
    return h * m / np.sqrt(squares) + b

# == dora_forward: wrong, y has W_lora in place of W_tuned
def dora_forward(x, W, b, A, B, m, s):
    return x @ W.T + b + s * x @ A.T @ B.T

# == dora_backward: right, by the product rule through the norm
def dora_backward(dy, x, V, m):
    norm = np.sqrt(np.sum(V**2, axis=1))
    h = x @ V.T
    a = np.einsum("no,no->o", dy, h)
    dh = dy * (m / norm)
    dnorm = -m * a / norm**2
    return {"dm": a / norm, "dV": dh.T @ x + (dnorm / norm)[:, None] * V, "dx": dh @ V}

# == dora_backward: wrong, ‖V‖ is treated as a constant
def dora_backward(dy, x, V, m):
    norm = np.linalg.norm(V, axis=1)
    dh = dy * m / norm
    return dh @ V, dh.T @ x, np.sum(dy * (x @ V.T), axis=0) / norm
