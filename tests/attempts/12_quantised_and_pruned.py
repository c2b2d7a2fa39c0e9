"""Attempts at exercise set 12: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == int8_quantise: right, row by row
def int8_quantise(W):
    codes, scales = [], []
    for row in W:
        largest = max(abs(row.min()), abs(row.max()))
        scales.append(largest / 127)
        codes.append(np.round(row * 127 / largest) if largest > 0 else np.zeros_like(row))
    return np.array(codes), np.array(scales)

# == int8_quantise: wrong, largest takes the max along axis 0, not along axis 1
def int8_quantise(W):
    scales = np.abs(W).max(axis=0) / 127
    return np.rint(W / scales), scales

# == bits_per_weight: right, from arrays that hold it all
def bits_per_weight(n_out, n_in, block_size):
    scales = np.zeros(n_out * n_in // block_size, dtype=np.float32)
    packed = np.zeros(n_out * n_in // 2, dtype=np.uint8)
    steps = scales[::256]
    held = [packed.nbytes + scales.nbytes, packed.nbytes + scales.astype(np.int8).nbytes + steps.nbytes + 4]
    return [8 * n / (n_out * n_in) for n in held]

# == bits_per_weight: wrong, double lacks the term 32
def bits_per_weight(n_out, n_in, block_size):
    scales = n_out * n_in // block_size
    steps = (scales + 255) // 256
    return 4 + 32 / block_size, 4 + (8 * scales + 32 * steps) / (n_out * n_in)

# == nf4_quantise: right, among the midpoints
def nf4_quantise(W, points, block_size):
    blocks = W.ravel().reshape(-1, block_size)
    absmax = np.maximum(blocks.max(axis=1), -blocks.min(axis=1))
    middle = 0.5 * (points[1:] + points[:-1])
    return np.digitize(blocks / absmax[:, None], middle), absmax

# == nf4_quantise: wrong, an intermediate result lacks the divisor absmax[:, None]
def nf4_quantise(W, points, block_size):
    blocks = W.reshape(-1, block_size)
    return np.abs(blocks[..., None] - points).argmin(axis=-1), np.abs(blocks).max(axis=1)

# == nf4_dequantise: right, by bits
def nf4_dequantise(packed, absmax, points, shape):
    codes = np.empty(2 * len(packed), dtype=int)
    codes[0::2] = packed >> 4
    codes[1::2] = packed & 0b1111
    return (points[codes] * np.repeat(absmax, len(codes) // len(absmax))).reshape(shape)

# == nf4_dequantise: wrong, codes has packed // 16 and packed % 16 swapped
def nf4_dequantise(packed, absmax, points, shape):
    codes = np.stack([packed % 16, packed // 16], axis=1).ravel()
    return (points[codes].reshape(len(absmax), -1) * absmax[:, None]).reshape(shape)

# == prune_n_of_m: right, by a threshold in each group
def prune_n_of_m(W, n, m):
    groups = W.reshape(-1, m)
    least = np.partition(groups**2, m - n, axis=1)[:, m - n, None]
    return (groups * (groups**2 >= least)).reshape(W.shape)

# == prune_n_of_m: wrong, an intermediate result lacks abs
def prune_n_of_m(W, n, m):
    groups = W.reshape(-1, m)
    least = np.sort(groups, axis=1)[:, -n, None]
    return np.where(groups >= least, groups, 0).reshape(W.shape)

# == sparse_forward: right, an output at a time
def sparse_forward(x, values, positions):
    starts = np.repeat(np.arange(0, x.shape[1], 4), 2)
    return np.column_stack([x[:, starts + p] @ v for v, p in zip(values, positions)])

# == sparse_forward: wrong, y has positions in place of inputs
def sparse_forward(x, values, positions):
    return (x[:, positions] * values).sum(axis=-1)

# == int8_lora_backward: right, with the weight made dense
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    W_hat = scales.reshape(-1, 1) * codes.astype(float)
    du = s * np.einsum("no,or->nr", dy, B)
    return dy @ W_hat + du @ A, du.T @ x, s * dy.T @ x @ A.T

# == int8_lora_backward: wrong, dx has dy in place of (dy * scales)
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    du = s * dy @ B
    return dy @ codes + du @ A, du.T @ x, s * dy.T @ (x @ A.T)

# == merge_back: right, counted in old steps
def merge_back(codes, scales, A, B, s):
    steps = s * np.einsum("or,ri->oi", B / scales[:, None], A)
    total = codes + steps
    wider = np.max(np.abs(total), axis=1, keepdims=True) / 127
    new_codes = np.rint(total / wider)
    moved = scales[:, None] * (new_codes * wider - total)
    size = np.linalg.norm(scales[:, None] * steps)
    return new_codes.astype(np.int8), scales * wider[:, 0], np.linalg.norm(moved) / size

# == merge_back: wrong, it is scales
def merge_back(codes, scales, A, B, s):
    delta = s * B @ A
    new_codes = np.clip(codes + np.rint(delta / scales[:, None]), -127, 127)
    lost = np.linalg.norm(scales[:, None] * (new_codes - codes) - delta) / np.linalg.norm(delta)
    return new_codes, scales.copy(), lost

# == bits_per_weight: right, as fractions
def bits_per_weight(n_out, n_in, block_size):
    from fractions import Fraction
    n, scales = n_out * n_in, n_out * n_in // block_size
    return Fraction(4 * n + 32 * scales, n), Fraction(4 * n + 8 * scales + 32 * -(-scales // 256) + 32, n)

# == sparse_forward: wrong, it is not finite
def sparse_forward(x, values, positions):
    W = np.zeros((len(values), 2 * values.shape[1]))
    columns = 4 * (np.arange(values.shape[1]) // 2) + positions
    np.put_along_axis(W, columns, values, axis=1)
    return x @ W.T

# == nf4_quantise: wrong, each weight gets the point above it
def nf4_quantise(W, points, block_size):
    blocks = W.reshape(-1, block_size)
    absmax = np.abs(blocks).max(axis=1)
    scaled = blocks / np.where(absmax > 0, absmax, 1)[:, None]
    codes = np.searchsorted(points, scaled)
    return codes, absmax

# == bits_per_weight: wrong, an intermediate result is rounded down, not up
def bits_per_weight(n_out, n_in, block_size):
    n, scales = n_out * n_in, n_out * n_in // block_size
    return 4 + 32 * scales / n, 4 + (8 * scales + 32 * (scales // 256) + 32) / n

# == bits_per_weight: wrong, an intermediate result is one too large where scales is a multiple of 256
def bits_per_weight(n_out, n_in, block_size):
    n, scales = n_out * n_in, n_out * n_in // block_size
    return 4 + 32 * scales / n, 4 + (8 * scales + 32 * (scales // 256 + 1) + 32) / n
