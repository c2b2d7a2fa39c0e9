"""Attempts at exercise set 14: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == rms_norm: right, by the norm of each row
def rms_norm(x, w, eps):
    C = x.shape[1]
    return np.array([w * row / np.sqrt(np.linalg.norm(row) ** 2 / C + eps) for row in x])

# == rms_norm: wrong, the mean is subtracted, as in a layer norm
def rms_norm(x, w, eps):
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps) * w

# == rms_norm: wrong, an intermediate result has + eps outside of sqrt
def rms_norm(x, w, eps):
    rms = np.sqrt((x * x).mean(axis=-1))
    return x / (rms + eps)[:, None] * w

# == rms_norm_backward: right, with each row's Jacobian
def rms_norm_backward(dy, x_hat, inv_rms, w):
    C, dx = len(w), []
    for n in range(len(dy)):
        jacobian = inv_rms[n] * (np.eye(C) - np.outer(x_hat[n], x_hat[n]) / C)
        dx.append(jacobian @ (dy[n] * w))
    return np.array(dx), np.einsum("nc,nc->c", dy, x_hat)

# == rms_norm_backward: wrong, the mean of dx̂ is subtracted, as in layer norm
def rms_norm_backward(dy, x_hat, inv_rms, w):
    d = dy * w
    d = d - d.mean(axis=1, keepdims=True) - x_hat * (d * x_hat).mean(axis=1, keepdims=True)
    return inv_rms * d, (dy * x_hat).sum(axis=0)

# == rms_norm_backward: wrong, has sum in place of mean
def rms_norm_backward(dy, x_hat, inv_rms, w):
    d = dy * w
    return inv_rms * (d - x_hat * (d * x_hat).sum(axis=1, keepdims=True)), (dy * x_hat).sum(axis=0)

# == rotate: right, with complex numbers
def rotate(x, positions, theta):
    D = x.shape[2]
    z = x[:, :, : D // 2] + 1j * x[:, :, D // 2 :]
    z = z * np.exp(1j * np.outer(positions, theta ** (-2 * np.arange(D // 2) / D)))
    return np.concatenate([z.real, z.imag], axis=2)

# == rotate: wrong, entries 2j and 2j + 1 are paired, not j and j + D/2
def rotate(x, positions, theta):
    D = x.shape[-1]
    angles = np.outer(positions, theta ** (-np.arange(0, D, 2) / D))
    y = np.empty_like(x)
    y[..., 0::2] = x[..., 0::2] * np.cos(angles) - x[..., 1::2] * np.sin(angles)
    y[..., 1::2] = x[..., 1::2] * np.cos(angles) + x[..., 0::2] * np.sin(angles)
    return y

# == rotate: wrong, an intermediate result has a * np.sin(angles) with the wrong sign
def rotate(x, positions, theta):
    D = x.shape[-1]
    angles = np.outer(positions, theta ** (-np.arange(0, D, 2) / D))
    a, b = np.split(x, 2, axis=-1)
    c, s = np.cos(angles), np.sin(angles)
    return np.concatenate([a * c - b * s, b * c - a * s], axis=-1)

# == rotate_backward: right, as a turn of each point
def rotate_backward(dy, cos, sin):
    half, dx = cos.shape[1], np.zeros_like(dy)
    for t in range(dy.shape[1]):
        for j in range(half):
            turn = np.array([[cos[t, j], -sin[t, j]], [sin[t, j], cos[t, j]]])
            dx[:, t, [j, j + half]] = dy[:, t, [j, j + half]] @ turn
    return dx

# == rotate_backward: wrong, dy is rotated in the forward direction
def rotate_backward(dy, cos, sin):
    a, b = np.split(dy, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

# == swiglu: right, by tanh
def swiglu(gate, up):
    return 0.5 * gate * (1 + np.tanh(gate / 2)) * up

# == swiglu: wrong, y lacks the factor gate
def swiglu(gate, up):
    return up / (1 + np.exp(-gate))

# == swiglu_backward: right, with the quotient rule
def swiglu_backward(dy, gate, up):
    e = np.exp(-gate)
    return dy * up * (1 + e + gate * e) / (1 + e) ** 2, dy * gate / (1 + e)

# == swiglu_backward: wrong, only the sigmoid is differentiated, but gate is a factor, too
def swiglu_backward(dy, gate, up):
    s = 1 / (1 + np.exp(-gate))
    return dy * up * s * (1 - s), dy * gate * s

# == swiglu_backward: wrong, dup lacks the factor gate
def swiglu_backward(dy, gate, up):
    s = 1 / (1 + np.exp(-gate))
    return dy * up * (s + gate * s * (1 - s)), dy * s

# == repeat_heads: right, head by head
def repeat_heads(k, G):
    return np.stack([k[:, h // G] for h in range(G * k.shape[1])], axis=1)

# == repeat_heads: wrong, head h reads key head h % K, not h // G
def repeat_heads(k, G):
    return np.concatenate([k] * G, axis=1)

# == repeat_heads_backward: right, head by head
def repeat_heads_backward(dy, G):
    dk = np.zeros((dy.shape[0], dy.shape[1] // G, *dy.shape[2:]))
    for h in range(dy.shape[1]):
        dk[:, h // G] += dy[:, h]
    return dk

# == repeat_heads_backward: wrong, has mean in place of sum
def repeat_heads_backward(dy, G):
    N, H, T, D = dy.shape
    return dy.reshape(N, -1, G, T, D).mean(axis=2)

# == repeat_heads_backward: wrong, heads h with the same h % K are added up, not those with the same h // G
def repeat_heads_backward(dy, G):
    N, H, T, D = dy.shape
    return dy.reshape(N, G, H // G, T, D).sum(axis=1)

# == cache_bytes: right, layer by layer
def cache_bytes(n_layers, n_heads, n_kv_heads, head_size, T, itemsize):
    def of(heads):
        return sum(2 * heads * head_size * itemsize * T for _ in range(n_layers))

    return of(n_heads), of(n_kv_heads)

# == cache_bytes: wrong, an intermediate result lacks the factor 2
def cache_bytes(n_layers, n_heads, n_kv_heads, head_size, T, itemsize):
    grouped = n_layers * n_kv_heads * head_size * T * itemsize
    return grouped * n_heads // n_kv_heads, grouped
