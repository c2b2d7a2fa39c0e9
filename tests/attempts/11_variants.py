"""Attempts at exercise set 11. Each begins with `# ==`, the item, and what it is: right; or wrong, and after it words
of the diagnosis that it has to get."""

# == rslora_scale: right, in powers
def rslora_scale(alpha, r):
    return alpha * r**-0.5, alpha * r**0.5


# == rslora_scale: right, by way of LoRA's scale
def rslora_scale(alpha, r):
    lora = alpha / r
    return {"alpha_lora": np.sqrt(r) * alpha, "s": np.sqrt(r) * lora}


# == rslora_scale: wrong, this is LoRA's scale
def rslora_scale(alpha, r):
    return alpha / r, alpha


# == rslora_scale: wrong, of the whole fraction
def rslora_scale(alpha, r):
    s = (alpha / r) ** 0.5
    return s, s * r


# == rslora_scale: wrong, multiplied by the root, not divided
def rslora_scale(alpha, r):
    s = alpha * np.sqrt(r)
    return s, s * r


# == rslora_scale: wrong, the α that was given
def rslora_scale(alpha, r):
    return alpha / np.sqrt(r), alpha


# == rslora_scale: wrong, the other way round
def rslora_scale(alpha, r):
    return alpha / np.sqrt(r), alpha / np.sqrt(r)


# == rslora_scale: wrong, it returns one
def rslora_scale(alpha, r):
    return alpha / np.sqrt(r)


# == first_change: right, with the matrix of products
def first_change(x, dy, A, s, lr):
    u = np.einsum("ni,ri->nr", x, A)
    dB = s * np.einsum("no,nr->or", dy, u)
    return -lr * s**2 * (u @ u.T) @ dy, -lr * s * np.einsum("nr,or->no", u, np.sign(dB))


# == first_change: right, row by row and with AdamW's own formula
def first_change(x, dy, A, s, lr):
    dB = np.zeros((dy.shape[1], len(A)))
    for x_n, dy_n in zip(x, dy):
        dB += s * np.outer(dy_n, A @ x_n)
    outputs = []
    for B in (-lr * dB, -lr * dB / np.sqrt(dB**2)):
        outputs.append(np.array([s * B @ (A @ x_n) for x_n in x]))
    return outputs


# == first_change: right, with the change of the weight
def first_change(x, dy, A, s, lr):
    dB = s * dy.T @ x @ A.T
    step = np.where(dB > 0, lr, -lr)
    delta = [-lr * s * dB @ A, -s * step @ A]
    return x @ delta[0].T, x @ delta[1].T


# == first_change: wrong, s stands in it only once
def first_change(x, dy, A, s, lr):
    u = x @ A.T
    dB = dy.T @ u
    return s * u @ (-lr * dB).T, s * u @ (-lr * np.sign(dB)).T


# == first_change: wrong, s stands in it twice
def first_change(x, dy, A, s, lr):
    u = x @ A.T
    dB = s * dy.T @ u
    return s * u @ (-lr * dB).T, s * u @ (-lr * s * np.sign(dB)).T


# == first_change: wrong, as long for a small gradient as for a large one
def first_change(x, dy, A, s, lr):
    u = x @ A.T
    z = -lr * s * u @ (s * dy.T @ u).T
    return z, z.copy()


# == first_change: wrong, the sign is taken of dy
def first_change(x, dy, A, s, lr):
    u = x @ A.T
    by_descent = -lr * s * u @ (s * dy.T @ u).T
    dB = s * np.sign(dy).T @ u
    return by_descent, -lr * s * u @ dB.T


# == first_change: wrong, x stands where u
def first_change(x, dy, A, s, lr):
    u = x @ A.T
    dB = s * dy.T @ u
    return -lr * s**2 * (x @ x.T) @ dy, -lr * s * u @ np.sign(dB).T


# == first_change: wrong, what it has caused itself
def first_change(x, dy, A, s, lr):
    u = x @ A.T
    dB = s * dy.T @ u
    by_descent = np.stack([-lr * s**2 * (u_n @ u_n) * dy_n for u_n, dy_n in zip(u, dy)])
    return by_descent, -lr * s * u @ np.sign(dB).T


# == first_change: wrong, divided by its length
def first_change(x, dy, A, s, lr):
    u = x @ A.T
    dB = s * dy.T @ u
    return -lr * s * u @ dB.T, -lr * s * u @ (dB / np.linalg.norm(dB)).T


# == first_change: wrong, along the sign of the gradient, uphill
def first_change(x, dy, A, s, lr):
    u = x @ A.T
    dB = s * dy.T @ u
    return lr * s * u @ dB.T, lr * s * u @ np.sign(dB).T


# == first_change: wrong, it has shape
def first_change(x, dy, A, s, lr):
    dB = s * dy.T @ (x @ A.T)
    return -lr * dB, -lr * np.sign(dB)


# == lora_plus_moves: right, as differences of outputs
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    def z(A, B):
        return s * (x @ A.T) @ B.T

    A_new, B_new = A - lr * dA, B - lr * ratio * dB
    through_A, through_B = z(A_new, B) - z(A, B), z(A, B_new) - z(A, B)
    return through_A, through_B, z(A_new, B_new) - z(A, B) - through_A - through_B


# == lora_plus_moves: right, through the change of the weight
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    terms = -lr * B @ dA, -lr * ratio * dB @ A, lr**2 * ratio * dB @ dA
    return tuple(np.einsum("ni,oi->no", x, s * term) for term in terms)


# == lora_plus_moves: wrong, the other factor has moved in it already
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    move_A, move_B = -lr * dA, -lr * ratio * dB
    through_A = s * (x @ move_A.T) @ B.T
    through_B = s * (x @ (A + move_A).T) @ move_B.T
    return through_A, through_B, s * (x @ move_A.T) @ move_B.T


# == lora_plus_moves: wrong, the ratio is B's
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    move_A, move_B = -lr * ratio * dA, -lr * dB
    return s * x @ move_A.T @ B.T, s * x @ A.T @ move_B.T, s * x @ move_A.T @ move_B.T


# == lora_plus_moves: wrong, the ratio is missing
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    return -lr * s * x @ dA.T @ B.T, -lr * s * x @ A.T @ dB.T, lr * lr * s * x @ dA.T @ dB.T


# == lora_plus_moves: wrong, two minus signs make a plus
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    through_A, through_B = -lr * s * x @ dA.T @ B.T, -ratio * lr * s * x @ A.T @ dB.T
    return through_A, through_B, -ratio * lr**2 * s * x @ dA.T @ dB.T


# == lora_plus_moves: wrong, lr stands in it once
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    through_A, through_B = -lr * s * x @ dA.T @ B.T, -ratio * lr * s * x @ A.T @ dB.T
    return through_A, through_B, ratio * lr * s * x @ dA.T @ dB.T


# == lora_plus_moves: wrong, divided by α/r
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    u, move_u = x @ A.T, -lr * x @ dA.T
    move_B = -lr * ratio * dB
    return move_u @ B.T, u @ move_B.T, move_u @ move_B.T


# == lora_plus_moves: wrong, not its change
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    A_new, B_new = A - lr * dA, B - lr * ratio * dB
    both = s * x @ (A_new - A).T @ (B_new - B).T
    return s * x @ A_new.T @ B.T, s * x @ A.T @ B_new.T, both


# == lora_plus_moves: wrong, this is the change in all
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    A_new, B_new = A - lr * dA, B - lr * ratio * dB
    both = s * x @ A_new.T @ B_new.T - s * x @ A.T @ B.T
    return s * x @ (A_new - A).T @ B.T, s * x @ A.T @ (B_new - B).T, both


# == lora_plus_moves: wrong, it is a multiple of lr
def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    move_A, move_B = -lr * dA, -ratio * dB
    return s * x @ move_A.T @ B.T, s * x @ A.T @ move_B.T, s * x @ move_A.T @ move_B.T


# == vera_backward: right, with the diagonal matrices
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    delta = np.diag(lambda_b) @ B @ np.diag(lambda_d) @ A
    G = dy.T @ x  # of the whole weight
    dd = np.diag(B.T @ np.diag(lambda_b) @ G @ A.T)
    db = np.diag(G @ A.T @ np.diag(lambda_d) @ B.T)
    return dy @ (W + delta), dd, db


# == vera_backward: right, by einsum
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    dd = np.einsum("no,o,or,ri,ni->r", dy, lambda_b, B, A, x)
    db = np.einsum("no,or,r,ri,ni->o", dy, B, lambda_d, A, x)
    dx = np.einsum("no,oi->ni", dy, W) + np.einsum("no,o,or,r,ri->ni", dy, lambda_b, B, lambda_d, A)
    return [dx, dd, db]


# == vera_backward: right, with vectors taken into the factors
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    thick_B = lambda_b[:, None] * B * lambda_d
    dx = dy @ W + (dy @ thick_B) @ A
    products = dy.T @ (x @ A.T)  # (out, r)
    return dx, lambda_b @ (products * B), (products * B) @ lambda_d


# == vera_backward: wrong, never trained, but x goes through them
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    v = x @ A.T
    dw = (lambda_b * dy) @ B
    return dy @ W, np.sum(dw * v, axis=0), np.sum(dy * ((lambda_d * v) @ B.T), axis=0)


# == vera_backward: wrong, λ_b is missing: it stands between dy and B
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    v = x @ A.T
    dx = dy @ W + (lambda_d * ((lambda_b * dy) @ B)) @ A
    return dx, np.sum((dy @ B) * v, axis=0), np.sum(dy * ((lambda_d * v) @ B.T), axis=0)


# == vera_backward: wrong, λ_d stands in its own gradient
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    w = lambda_d * (x @ A.T)
    dw = (lambda_b * dy) @ B
    return dy @ W + (lambda_d * dw) @ A, np.sum(dw * w, axis=0), np.sum(dy * (w @ B.T), axis=0)


# == vera_backward: wrong, λ_d is missing in z
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    v = x @ A.T
    dw = (lambda_b * dy) @ B
    return dy @ W + (lambda_d * dw) @ A, np.sum(dw * v, axis=0), np.sum(dy * (v @ B.T), axis=0)


# == vera_backward: wrong, λ_d is missing on the adapter's path
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    v = x @ A.T
    dw = (lambda_b * dy) @ B
    return dy @ W + dw @ A, np.sum(dw * v, axis=0), np.sum(dy * ((lambda_d * v) @ B.T), axis=0)


# == vera_backward: wrong, summed over the rows before the product
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    v = x @ A.T
    z = (lambda_d * v) @ B.T
    dw = (lambda_b * dy) @ B
    return dy @ W + (lambda_d * dw) @ A, dw.sum(0) * v.sum(0), dy.sum(0) * z.sum(0)


# == vera_backward: wrong, it has shape
def vera_backward(dy, x, W, A, B, lambda_d, lambda_b):
    v = x @ A.T
    dw = (lambda_b * dy) @ B
    return dy @ W + (lambda_d * dw) @ A, dw * v, dy * ((lambda_d * v) @ B.T)


# == pissa_start: right, from the eigenvectors, with other signs
def pissa_start(W, r, s):
    values, vectors = np.linalg.eigh(W.T @ W)
    V, sigma = -vectors[:, ::-1][:, :r], np.sqrt(values[::-1][:r])
    B = (W @ V) / np.sqrt(s * sigma)
    A = np.diag(np.sqrt(sigma / s)) @ V.T
    return A, B, W - s * (B @ A)


# == pissa_start: right, the rest from the weak directions
def pissa_start(W, r, s):
    U, S, Vt = np.linalg.svd(W)
    n = len(S)
    D = np.diag(np.sqrt(S[:r])) / np.sqrt(s)
    rest = np.einsum("ok,k,ki->oi", U[:, r:n], S[r:], Vt[r:n])
    return {"A": D @ Vt[:r], "B": U[:, :r] @ D, "W_rest": rest}


# == pissa_start: wrong, it is s B A that has to be
def pissa_start(W, r, s):
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    root = np.sqrt(S[:r])
    A, B = root[:, None] * Vt[:r], U[:, :r] * root
    return A, B, W - B @ A


# == pissa_start: wrong, all of σ/s is in B
def pissa_start(W, r, s):
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    A, B = Vt[:r], U[:, :r] * S[:r] / s
    return A, B, W - s * B @ A


# == pissa_start: wrong, 1/s is in A alone
def pissa_start(W, r, s):
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    root = np.sqrt(S[:r])
    A, B = root[:, None] * Vt[:r] / s, U[:, :r] * root
    return A, B, W - s * B @ A


# == pissa_start: wrong, this is W itself
def pissa_start(W, r, s):
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    root = np.sqrt(S[:r] / s)
    return root[:, None] * Vt[:r], U[:, :r] * root, W.copy()


# == pissa_start: wrong, s is missing in W − s B A
def pissa_start(W, r, s):
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    root = np.sqrt(S[:r] / s)
    A, B = root[:, None] * Vt[:r], U[:, :r] * root
    return A, B, W - B @ A


# == pissa_start: wrong, the weakest directions
def pissa_start(W, r, s):
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    root = np.sqrt(S[-r:] / s)
    A, B = root[:, None] * Vt[-r:], U[:, -r:] * root
    return A, B, W - s * B @ A


# == pissa_start: wrong, both factors have σ
def pissa_start(W, r, s):
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    A, B = S[:r, None] * Vt[:r], U[:, :r] * S[:r]
    return A, B, W - s * B @ A


# == pissa_start: wrong, it gives Vᵀ
def pissa_start(W, r, s):
    U, S, V = np.linalg.svd(W)
    root = np.sqrt(S[:r] / s)
    A, B = root[:, None] * V[:, :r].T, U[:, :r] * root
    return A, B, W - s * B @ A


# == pissa_start: wrong, A has shape
def pissa_start(W, r, s):
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    root = np.sqrt(S[:r] / s)
    return Vt[:r].T * root, U[:, :r] * root, W - (U[:, :r] * S[:r]) @ Vt[:r]


# == loftq_start: right, with the whole of σ in B and the adapter's part in a list
def loftq_start(W, quantise, r, s, rounds):
    parts = [0.0 * W]
    for _ in range(rounds):
        Q = quantise(W - parts[-1])
        U, S, Vt = np.linalg.svd(W - Q)
        A, B = Vt[:r], U[:, :r] @ np.diag(S[:r]) / s
        parts.append(s * (B @ A))
    return Q, A, B


# == loftq_start: right, by recursion and a projection
def loftq_start(W, quantise, r, s, rounds):
    if rounds == 1:
        Q = quantise(W)
    else:
        _, A, B = loftq_start(W, quantise, r, s, rounds - 1)
        Q = quantise(W - s * B @ A)
    values, V = np.linalg.eigh((W - Q).T @ (W - Q))
    V = V[:, -r:]
    return Q, V.T, (W - Q) @ V / s


# == loftq_start: wrong, this is W, quantised
def loftq_start(W, quantise, r, s, rounds):
    for _ in range(rounds):
        Q = quantise(W)
        U, S, Vt = np.linalg.svd(W - Q, full_matrices=False)
        A, B = np.sqrt(S[:r, None] / s) * Vt[:r], U[:, :r] * np.sqrt(S[:r] / s)
    return Q, A, B


# == loftq_start: wrong, one round is missing
def loftq_start(W, quantise, r, s, rounds):
    held = np.zeros_like(W)
    for _ in range(1, rounds):
        Q = quantise(W - held)
        U, S, Vt = np.linalg.svd(W - Q, full_matrices=False)
        A, B = Vt[:r], U[:, :r] * S[:r] / s
        held = s * B @ A
    return Q, A, B


# == loftq_start: wrong, it has begun with the leading directions of W
def loftq_start(W, quantise, r, s, rounds):
    Q = np.zeros_like(W)
    for _ in range(rounds):
        U, S, Vt = np.linalg.svd(W - Q, full_matrices=False)
        A, B = Vt[:r], U[:, :r] * S[:r] / s
        Q = quantise(W - s * B @ A)
    return Q, A, B


# == loftq_start: wrong, it is a round older than Q
def loftq_start(W, quantise, r, s, rounds):
    A, B = np.zeros((r, W.shape[1])), np.zeros((len(W), r))
    for n in range(rounds):
        Q = quantise(W - s * B @ A)
        if n < rounds - 1:
            U, S, Vt = np.linalg.svd(W - Q, full_matrices=False)
            A, B = Vt[:r], U[:, :r] * S[:r] / s
    return Q, A, B


# == loftq_start: wrong, s is missing where the adapter's part is taken off
def loftq_start(W, quantise, r, s, rounds):
    A, B = np.zeros((r, W.shape[1])), np.zeros((len(W), r))
    for _ in range(rounds):
        Q = quantise(W - B @ A)
        U, S, Vt = np.linalg.svd(W - Q, full_matrices=False)
        A, B = Vt[:r], U[:, :r] * S[:r] / s
    return Q, A, B


# == loftq_start: wrong, s is missing: it is s B A
def loftq_start(W, quantise, r, s, rounds):
    held = 0 * W
    for _ in range(rounds):
        Q = quantise(W - held)
        U, S, Vt = np.linalg.svd(W - Q, full_matrices=False)
        A, B = Vt[:r], U[:, :r] * S[:r]
        held = B @ A
    return Q, A, B


# == loftq_start: wrong, it is not quantised
def loftq_start(W, quantise, r, s, rounds):
    held = 0 * W
    for _ in range(rounds):
        Q = quantise(W - held)
        U, S, Vt = np.linalg.svd(W - Q, full_matrices=False)
        A, B = Vt[:r], U[:, :r] * S[:r] / s
        held = s * B @ A
    return W - held, A, B


# == loftq_start: wrong, what is left of W
def loftq_start(W, quantise, r, s, rounds):
    Q = 0 * W
    for _ in range(rounds):
        Q = quantise(W - Q)
    U, S, Vt = np.linalg.svd(W - Q, full_matrices=False)
    return Q, Vt[:r], U[:, :r] * S[:r] / s


# == dora_forward: right, output by output
def dora_forward(x, W, b, A, B, m, s):
    y = np.empty((len(x), len(W)))
    for o in range(len(W)):
        row = W[o] + s * B[o] @ A
        y[:, o] = x @ (m[o] * row / np.sqrt(row @ row)) + b[o]
    return y


# == dora_forward: right, scaled after the products
def dora_forward(x, W, b, A, B, m, s):
    h = x @ W.T + s * (x @ A.T) @ B.T
    squares = np.einsum("oi,oi->o", W, W) + 2 * s * np.einsum("oi,or,ri->o", W, B, A)
    squares += s**2 * np.einsum("or,rq,oq->o", B, A @ A.T, B)
    return h * m / np.sqrt(squares) + b


# == dora_forward: wrong, this is LoRA
def dora_forward(x, W, b, A, B, m, s):
    return x @ W.T + b + s * x @ A.T @ B.T


# == dora_forward: wrong, m is missing
def dora_forward(x, W, b, A, B, m, s):
    V = W + s * B @ A
    return x @ (V / np.linalg.norm(V, axis=1, keepdims=True)).T + b


# == dora_forward: wrong, those of columns
def dora_forward(x, W, b, A, B, m, s):
    V = W + s * B @ A
    return x @ (m[:, None] * V / np.linalg.norm(V, axis=0)).T + b


# == dora_forward: wrong, the lengths of W's rows
def dora_forward(x, W, b, A, B, m, s):
    V = W + s * B @ A
    return x @ ((m / np.linalg.norm(W, axis=1))[:, None] * V).T + b


# == dora_forward: wrong, only W's rows are set to m
def dora_forward(x, W, b, A, B, m, s):
    directions = W / np.linalg.norm(W, axis=1, keepdims=True)
    return x @ (m[:, None] * directions).T + s * (x @ A.T) @ B.T + b


# == dora_forward: wrong, the bias is multiplied
def dora_forward(x, W, b, A, B, m, s):
    V = W + s * B @ A
    y = x @ V.T + b
    return y * m / np.linalg.norm(V, axis=1)


# == dora_forward: wrong, s is missing in V
def dora_forward(x, W, b, A, B, m, s):
    V = W + B @ A
    return x @ (m / np.linalg.norm(V, axis=1) * V.T) + b


# == dora_forward: wrong, of the whole matrix
def dora_forward(x, W, b, A, B, m, s):
    V = W + s * B @ A
    return x @ (m[:, None] * V / np.linalg.norm(V)).T + b


# == dora_forward: wrong, it raises ValueError: operands could not be broadcast
def dora_forward(x, W, b, A, B, m, s):
    V = W + s * B @ A
    return x @ (m * V / np.linalg.norm(V, axis=1)).T + b


# == dora_backward: right, row by row with a projection matrix
def dora_backward(dy, x, V, m):
    dx, dV, dm = np.zeros_like(x), np.zeros_like(V), np.zeros_like(m)
    for o in range(len(V)):
        n = np.sqrt(V[o] @ V[o])
        g = dy[:, o] @ x
        across = np.eye(V.shape[1]) - np.outer(V[o], V[o]) / n**2
        dV[o] = m[o] / n * across @ g
        dm[o] = g @ V[o] / n
        dx += np.outer(dy[:, o], m[o] * V[o] / n)
    return dx, dV, dm


# == dora_backward: right, by the product rule through the norm
def dora_backward(dy, x, V, m):
    norm = np.sqrt(np.sum(V**2, axis=1))
    h = x @ V.T
    a = np.einsum("no,no->o", dy, h)
    dh = dy * (m / norm)
    dnorm = -m * a / norm**2
    return {"dm": a / norm, "dV": dh.T @ x + (dnorm / norm)[:, None] * V, "dx": dh @ V}


# == dora_backward: wrong, with ‖V‖ held constant
def dora_backward(dy, x, V, m):
    norm = np.linalg.norm(V, axis=1)
    dh = dy * m / norm
    return dh @ V, dh.T @ x, np.sum(dy * (x @ V.T), axis=0) / norm


# == dora_backward: wrong, only one of the two V's is divided
def dora_backward(dy, x, V, m):
    norm = np.linalg.norm(V, axis=1, keepdims=True)
    dW = dy.T @ x
    along = np.sum(dW * V, axis=1, keepdims=True)
    dV = m[:, None] / norm * (dW - along * V / norm)
    return dy @ (m[:, None] * V / norm), dV, np.sum(dW * V / norm, axis=1)


# == dora_backward: wrong, not of the part that is taken off
def dora_backward(dy, x, V, m):
    norm = np.linalg.norm(V, axis=1, keepdims=True)
    unit, dW = V / norm, dy.T @ x
    along = np.sum(dW * unit, axis=1)
    dV = m[:, None] / norm * dW - along[:, None] * unit
    return dy @ (m[:, None] * unit), dV, along


# == dora_backward: wrong, the part along each row is added
def dora_backward(dy, x, V, m):
    norm = np.linalg.norm(V, axis=1, keepdims=True)
    unit, dW = V / norm, dy.T @ x
    along = np.sum(dW * unit, axis=1)
    dV = m[:, None] / norm * (dW + along[:, None] * unit)
    return dy @ (m[:, None] * unit), dV, along


# == dora_backward: wrong, the division by ‖V‖ is missing in front
def dora_backward(dy, x, V, m):
    unit = V / np.linalg.norm(V, axis=1, keepdims=True)
    dW = dy.T @ x
    along = np.sum(dW * unit, axis=1)
    return dy @ (m[:, None] * unit), m[:, None] * (dW - along[:, None] * unit), along


# == dora_backward: wrong, which is not what x went through
def dora_backward(dy, x, V, m):
    norm = np.linalg.norm(V, axis=1, keepdims=True)
    dW = dy.T @ x
    along = np.sum(dW * V, axis=1, keepdims=True) / norm
    return dy @ V, m[:, None] / norm * (dW - along * V / norm), along[:, 0]


# == dora_backward: wrong, the product of dW′ with W′
def dora_backward(dy, x, V, m):
    norm = np.linalg.norm(V, axis=1, keepdims=True)
    W_tuned, dW = m[:, None] * V / norm, dy.T @ x
    across = dW - np.sum(dW * V, axis=1, keepdims=True) * V / norm**2
    return dy @ W_tuned, m[:, None] / norm * across, np.sum(dW * W_tuned, axis=1)


# == dora_backward: wrong, that along the columns
def dora_backward(dy, x, V, m):
    norm = np.linalg.norm(V, axis=1, keepdims=True)
    unit, dW = V / norm, dy.T @ x
    dV = m[:, None] / norm * (dW - unit * np.sum(dW * unit, axis=0))
    return dy @ (m[:, None] * unit), dV, np.sum(dW * unit, axis=1)
