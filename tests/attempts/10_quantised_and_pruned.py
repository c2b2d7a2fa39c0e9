"""Attempts at exercise set 10. Each begins with `# ==`, the item, and what it is: right; or wrong, and after it words
of the diagnosis that it has to get."""

# == int8_quantise: right, row by row
def int8_quantise(W):
    codes, scales = [], []
    for row in W:
        largest = max(abs(row.min()), abs(row.max()))
        scales.append(largest / 127)
        codes.append(np.round(row * 127 / largest) if largest > 0 else np.zeros_like(row))
    return np.array(codes), np.array(scales)


# == int8_quantise: right, with halves added and the fraction dropped, in a dict
def int8_quantise(W):
    scale = np.linalg.norm(W, ord=np.inf, axis=1, keepdims=True) / 127
    x = np.divide(W, scale, out=np.zeros_like(W), where=scale != 0)
    return {"codes": np.floor(x + 0.5).astype(int), "scales": scale.ravel()}


# == int8_quantise: right, NaN mended afterwards
def int8_quantise(W):
    scales = np.abs(W).max(axis=1) / 127
    codes = np.nan_to_num(np.rint(W.T / scales).T)
    return codes.astype(np.int8), scales


# == int8_quantise: wrong, it is not finite
def int8_quantise(W):
    scales = np.abs(W).max(axis=1) / 127
    return np.rint(W / scales[:, None]), scales


# == int8_quantise: wrong, cut off, not rounded
def int8_quantise(W):
    scales = np.abs(W).max(axis=1) / 127
    codes = (W / np.maximum(scales, 1e-30)[:, None]).astype(np.int8)
    return codes, scales


# == int8_quantise: wrong, the largest weight is taken
def int8_quantise(W):
    scales = W.max(axis=1) / 127
    safe = np.where(scales == 0, 1, scales)
    return np.rint(W / safe[:, None]), scales


# == int8_quantise: wrong, sets one scale for all
def int8_quantise(W):
    scale = np.abs(W).max() / 127
    return np.rint(W / scale), np.full(W.shape[0], scale)


# == int8_quantise: wrong, divided by 128
def int8_quantise(W):
    scales = np.abs(W).max(axis=1) / 2**7
    codes = np.rint(W / np.where(scales > 0, scales, 1)[:, None])
    return np.clip(codes, -127, 127).astype(np.int8), scales


# == int8_quantise: wrong, not yet divided by 127
def int8_quantise(W):
    largest = np.abs(W).max(axis=1)
    codes = np.rint(127 * W / np.where(largest > 0, largest, 1)[:, None])
    return codes.astype(np.int8), largest


# == int8_quantise: wrong, between the smallest and the largest weight
def int8_quantise(W):
    low, high = W.min(axis=1), W.max(axis=1)
    scales = (high - low) / 255
    codes = np.rint((W - low[:, None]) / np.where(scales > 0, scales, 1)[:, None])
    return codes, scales


# == int8_quantise: wrong, none is below 0
def int8_quantise(W):
    scales = np.abs(W).max(axis=1) / 127
    codes = np.rint(W / np.where(scales > 0, scales, 1)[:, None])
    return (codes + 127).astype(np.uint8), scales


# == int8_quantise: wrong, the weights that come back
def int8_quantise(W):
    scales = np.abs(W).max(axis=1) / 127
    marks = np.rint(W / np.where(scales > 0, scales, 1)[:, None])
    return marks * scales[:, None], scales


# == int8_quantise: wrong, it has shape
def int8_quantise(W):
    scales = np.abs(W).max(axis=0) / 127
    return np.rint(W / scales), scales


# == bits_per_weight: right, in bytes first
def bits_per_weight(n_out, n_in, block_size):
    codes = n_out * n_in / 2
    blocks = n_out * n_in // block_size
    single = codes + 4 * blocks
    double = codes + blocks + 4 * np.ceil(blocks / 256) + 4
    return 8 * single / (n_out * n_in), 8 * double / (n_out * n_in)


# == bits_per_weight: right, from arrays that hold it all
def bits_per_weight(n_out, n_in, block_size):
    scales = np.zeros(n_out * n_in // block_size, dtype=np.float32)
    packed = np.zeros(n_out * n_in // 2, dtype=np.uint8)
    steps = scales[::256]
    held = [packed.nbytes + scales.nbytes, packed.nbytes + scales.astype(np.int8).nbytes + steps.nbytes + 4]
    return [8 * n / (n_out * n_in) for n in held]


# == bits_per_weight: right, group by group
def bits_per_weight(n_out, n_in, block_size):
    size = n_out * n_in
    left, bits = size // block_size, 4 * size + 32
    while left > 0:
        bits += 32 + 8 * min(left, 256)
        left -= 256
    return 4 + 32 / block_size, bits / size


# == bits_per_weight: wrong, this is the formula for a very large matrix
def bits_per_weight(n_out, n_in, block_size):
    return 4 + 32 / block_size, 4 + 8 / block_size + 32 / (block_size * 256)


# == bits_per_weight: wrong, 32 bits are missing
def bits_per_weight(n_out, n_in, block_size):
    scales = n_out * n_in // block_size
    steps = (scales + 255) // 256
    return 4 + 32 / block_size, 4 + (8 * scales + 32 * steps) / (n_out * n_in)


# == bits_per_weight: wrong, the steps are missing
def bits_per_weight(n_out, n_in, block_size):
    return 4 + 32 / block_size, 4 + 8 / block_size


# == bits_per_weight: wrong, it has 32 bits, which are 4 bytes
def bits_per_weight(n_out, n_in, block_size):
    scales = n_out * n_in // block_size
    single = 4 + 4 / block_size
    return single, 4 + (8 * scales + 32 * -(-scales // 256) + 32) / (n_out * n_in)


# == bits_per_weight: wrong, divided by 8 (bits for bytes)
def bits_per_weight(n_out, n_in, block_size):
    weights = n_out * n_in
    scales = weights // block_size
    steps = -(-scales // 256)
    return (weights / 2 + 4 * scales) / weights, (weights / 2 + scales + 4 * steps + 4) / weights


# == bits_per_weight: wrong, 256 scales share a step, not 256 weights
def bits_per_weight(n_out, n_in, block_size):
    weights = n_out * n_in
    double = 4 * weights + 8 * weights / block_size + 32 * weights / 256
    return 4 + 32 / block_size, double / weights


# == bits_per_weight: wrong, held twice
def bits_per_weight(n_out, n_in, block_size):
    weights = n_out * n_in
    scales = weights // block_size
    single = 4 + 32 / block_size
    return single, single + (8 * scales + 32 * -(-scales // 256) + 32) / weights


# == nf4_quantise: right, among the midpoints
def nf4_quantise(W, points, block_size):
    blocks = W.ravel().reshape(-1, block_size)
    absmax = np.maximum(blocks.max(axis=1), -blocks.min(axis=1))
    middle = 0.5 * (points[1:] + points[:-1])
    return np.digitize(blocks / absmax[:, None], middle), absmax


# == nf4_quantise: right, block by block with the points stretched
def nf4_quantise(W, points, block_size):
    flat = W.flatten()
    codes, absmax = [], []
    for start in range(0, len(flat), block_size):
        block = flat[start : start + block_size]
        c = np.max(np.abs(block))
        absmax.append(c)
        codes.append([int(np.argmin((w - c * points) ** 2)) for w in block])
    return np.array(codes, dtype=np.uint8), np.array(absmax)


# == nf4_quantise: right, counting the midpoints below
def nf4_quantise(W, points, block_size):
    u = W.reshape(-1, block_size).copy()
    c = np.sqrt(np.max(u * u, axis=1))
    u /= c[:, np.newaxis]
    codes = np.zeros(u.shape)
    for low, high in zip(points[:-1], points[1:]):
        codes += u > (low + high) / 2
    return {"absmax": c, "codes": codes}


# == nf4_quantise: wrong, evenly spaced
def nf4_quantise(W, points, block_size):
    blocks = W.reshape(-1, block_size)
    absmax = np.abs(blocks).max(axis=1)
    return np.rint((blocks / absmax[:, None] + 1) / 2 * 15).astype(int), absmax


# == nf4_quantise: wrong, gets the point below it
def nf4_quantise(W, points, block_size):
    blocks = W.reshape(-1, block_size)
    absmax = np.abs(blocks).max(axis=1)
    u = blocks / absmax[:, None]
    codes = (u[..., None] >= points).sum(axis=-1) - 1
    return codes, absmax


# == nf4_quantise: wrong, the largest weight is taken
def nf4_quantise(W, points, block_size):
    blocks = W.reshape(-1, block_size)
    absmax = blocks.max(axis=1)
    codes = np.abs((blocks / absmax[:, None])[:, :, None] - points).argmin(axis=2)
    return codes, absmax


# == nf4_quantise: wrong, has kept its sign
def nf4_quantise(W, points, block_size):
    blocks = W.reshape(-1, block_size)
    absmax = np.abs(blocks).max(axis=1)
    return np.argmin((blocks / absmax[:, None])[..., None] - points, axis=-1), absmax


# == nf4_quantise: wrong, are not divided by their largest magnitude
def nf4_quantise(W, points, block_size):
    blocks = W.reshape(-1, block_size)
    return np.abs(blocks[..., None] - points).argmin(axis=-1), np.abs(blocks).max(axis=1)


# == nf4_quantise: wrong, the largest magnitude of the whole matrix
def nf4_quantise(W, points, block_size):
    blocks = W.reshape(-1, block_size)
    c = np.abs(W).max()
    return np.abs(blocks[..., None] / c - points).argmin(axis=-1), np.repeat(c, len(blocks))


# == nf4_quantise: wrong, cut down the columns
def nf4_quantise(W, points, block_size):
    blocks = W.T.reshape(-1, block_size)
    absmax = np.abs(blocks).max(axis=1)
    return np.abs(blocks[..., None] / absmax[:, None, None] - points).argmin(axis=-1), absmax


# == nf4_quantise: wrong, the points themselves
def nf4_quantise(W, points, block_size):
    blocks = W.reshape(-1, block_size)
    absmax = np.abs(blocks).max(axis=1)
    k = np.abs((blocks / absmax[:, None])[..., None] - points).argmin(axis=-1)
    return np.take(points, k), absmax


# == nf4_quantise: wrong, it has shape
def nf4_quantise(W, points, block_size):
    blocks = W.reshape(block_size, -1)
    absmax = np.abs(blocks).max(axis=0)
    return np.abs((blocks / absmax)[..., None] - points).argmin(axis=-1), absmax


# == nf4_dequantise: right, by bits
def nf4_dequantise(packed, absmax, points, shape):
    codes = np.empty(2 * len(packed), dtype=int)
    codes[0::2] = packed >> 4
    codes[1::2] = packed & 0b1111
    return (points[codes] * np.repeat(absmax, len(codes) // len(absmax))).reshape(shape)


# == nf4_dequantise: right, weight by weight
def nf4_dequantise(packed, absmax, points, shape):
    out, cols = shape
    block_size = out * cols // len(absmax)
    W_hat = np.zeros(shape)
    for o in range(out):
        for i in range(cols):
            n = o * cols + i
            code = divmod(int(packed[n // 2]), 16)[n % 2]
            W_hat[o, i] = absmax[n // block_size] * points[code]
    return W_hat


# == nf4_dequantise: right, with a table of all pairs
def nf4_dequantise(packed, absmax, points, shape):
    pairs = np.stack(np.meshgrid(points, points, indexing="ij"), axis=-1).reshape(256, 2)
    W_hat = pairs[packed].reshape(absmax.size, -1)
    W_hat *= absmax.reshape(-1, 1)
    return W_hat.reshape(shape)


# == nf4_dequantise: wrong, the two codes of a byte are exchanged: the first one counts the sixteens
def nf4_dequantise(packed, absmax, points, shape):
    codes = np.stack([packed % 16, packed // 16], axis=1).ravel()
    return (points[codes].reshape(len(absmax), -1) * absmax[:, None]).reshape(shape)


# == nf4_dequantise: wrong, the two of a byte are neighbours
def nf4_dequantise(packed, absmax, points, shape):
    codes = np.concatenate([packed // 16, packed % 16])
    return (points[codes].reshape(len(absmax), -1) * absmax[:, None]).reshape(shape)


# == nf4_dequantise: wrong, from weight to weight, not from block to block
def nf4_dequantise(packed, absmax, points, shape):
    codes = np.stack([packed // 16, packed % 16], axis=1).ravel()
    values = points[codes].reshape(-1, len(absmax))
    return (values * absmax).reshape(shape)


# == nf4_dequantise: wrong, the blocks' scales are missing
def nf4_dequantise(packed, absmax, points, shape):
    codes = np.stack([packed // 16, packed % 16], axis=1)
    return points[codes].reshape(shape)


# == nf4_dequantise: wrong, the codes stand where their points belong
def nf4_dequantise(packed, absmax, points, shape):
    codes = np.stack([packed // 16, packed % 16], axis=1).ravel()
    return (codes * np.repeat(absmax, codes.size // absmax.size)).reshape(shape)


# == nf4_dequantise: wrong, evenly spaced
def nf4_dequantise(packed, absmax, points, shape):
    codes = np.stack([packed // 16, packed % 16], axis=1).ravel()
    values = 2 * codes / 15 - 1
    return (values * np.repeat(absmax, codes.size // absmax.size)).reshape(shape)


# == nf4_dequantise: wrong, column by column
def nf4_dequantise(packed, absmax, points, shape):
    codes = np.stack([packed // 16, packed % 16], axis=1).ravel()
    values = points[codes] * np.repeat(absmax, codes.size // absmax.size)
    return values.reshape(shape[::-1]).T


# == nf4_dequantise: wrong, it raises IndexError
def nf4_dequantise(packed, absmax, points, shape):
    return (points[packed].reshape(len(absmax), -1) * absmax[:, None]).reshape(shape)


# == prune_n_of_m: right, group by group
def prune_n_of_m(W, n, m):
    pruned = np.zeros_like(W)
    for o in range(W.shape[0]):
        for start in range(0, W.shape[1], m):
            group = W[o, start : start + m]
            for k in sorted(range(m), key=lambda k: -abs(group[k]))[:n]:
                pruned[o, start + k] = group[k]
    return pruned


# == prune_n_of_m: right, by a threshold in each group
def prune_n_of_m(W, n, m):
    groups = W.reshape(-1, m)
    least = np.partition(groups**2, m - n, axis=1)[:, m - n, None]
    return (groups * (groups**2 >= least)).reshape(W.shape)


# == prune_n_of_m: right, by ranks on a copy
def prune_n_of_m(W, n, m):
    pruned = W.copy()
    groups = pruned.reshape(len(W), W.shape[1] // m, m)
    ranks = np.argsort(np.argsort(-np.abs(groups), axis=2), axis=2)
    groups[ranks >= n] = 0
    return pruned


# == prune_n_of_m: wrong, a negative weight may have the larger magnitude
def prune_n_of_m(W, n, m):
    groups = W.reshape(-1, m)
    least = np.sort(groups, axis=1)[:, -n, None]
    return np.where(groups >= least, groups, 0).reshape(W.shape)


# == prune_n_of_m: wrong, n are set to zero
def prune_n_of_m(W, n, m):
    groups = W.reshape(-1, m).copy()
    order = np.argsort(np.abs(groups), axis=1)
    np.put_along_axis(groups, order[:, :n], 0, axis=1)
    return groups.reshape(W.shape)


# == prune_n_of_m: wrong, the n of least magnitude stay
def prune_n_of_m(W, n, m):
    groups = W.reshape(-1, m)
    ranks = np.abs(groups).argsort(axis=1).argsort(axis=1)
    return np.where(ranks < n, groups, 0).reshape(W.shape)


# == prune_n_of_m: wrong, run down the columns
def prune_n_of_m(W, n, m):
    groups = np.abs(W).reshape(-1, m, W.shape[1])
    order = np.argsort(groups, axis=1)
    keep = np.ones(groups.shape, bool)
    np.put_along_axis(keep, order[:, : m - n], False, axis=1)
    return W * keep.reshape(W.shape)


# == prune_n_of_m: wrong, this is pruning by magnitude
def prune_n_of_m(W, n, m):
    sizes = np.sort(np.abs(W), axis=None)
    return np.where(np.abs(W) >= sizes[W.size * (m - n) // m], W, 0.0)


# == prune_n_of_m: wrong, a whole row is taken for one group
def prune_n_of_m(W, n, m):
    drop = W.shape[1] * (m - n) // m
    pruned = W.copy()
    for row in pruned:
        row[np.argsort(np.abs(row))[:drop]] = 0
    return pruned


# == prune_n_of_m: wrong, in / m columns apart
def prune_n_of_m(W, n, m):
    groups = np.abs(W).reshape(len(W), m, -1)
    ranks = groups.argsort(axis=1).argsort(axis=1)
    return W * (ranks >= m - n).reshape(W.shape)


# == prune_n_of_m: wrong, ones where weights should stay
def prune_n_of_m(W, n, m):
    groups = np.abs(W).reshape(-1, m)
    ranks = groups.argsort(axis=1).argsort(axis=1)
    return 1.0 * (ranks >= m - n).reshape(W.shape)


# == prune_n_of_m: wrong, it changes its argument W
def prune_n_of_m(W, n, m):
    groups = W.reshape(-1, m)
    groups[np.abs(groups).argsort(axis=1).argsort(axis=1) < m - n] = 0
    return W


# == sparse_forward: right, value by value
def sparse_forward(x, values, positions):
    y = np.zeros((len(x), len(values)))
    for o, (row, places) in enumerate(zip(values, positions)):
        for k, (value, place) in enumerate(zip(row, places)):
            y[:, o] += value * x[:, k // 2 * 4 + place]
    return y


# == sparse_forward: right, by einsum over groups
def sparse_forward(x, values, positions):
    fours = x.reshape(len(x), -1, 4)
    pairs = values.reshape(len(values), -1, 2)
    at = positions.reshape(pairs.shape)
    met = fours[:, np.arange(fours.shape[1])[:, None], at]
    return np.einsum("ogk,nogk->no", pairs, met)


# == sparse_forward: right, the matrix put together after all
def sparse_forward(x, values, positions):
    hot = np.eye(4)[positions] * values[..., None]
    W = hot.reshape(len(values), -1, 2, 4).sum(axis=2).reshape(len(values), -1)
    return x @ W.T


# == sparse_forward: right, an output at a time
def sparse_forward(x, values, positions):
    starts = np.repeat(np.arange(0, x.shape[1], 4), 2)
    return np.column_stack([x[:, starts + p] @ v for v, p in zip(values, positions)])


# == sparse_forward: wrong, it counts within its group of four
def sparse_forward(x, values, positions):
    return (x[:, positions] * values).sum(axis=-1)


# == sparse_forward: wrong, the positions are not used: values meet the first half
def sparse_forward(x, values, positions):
    return x[:, : values.shape[1]] @ values.T


# == sparse_forward: wrong, at every second input, not at every fourth
def sparse_forward(x, values, positions):
    starts = np.repeat(np.arange(0, values.shape[1], 2), 2)
    return (x[:, starts + positions] * values).sum(axis=-1)


# == sparse_forward: wrong, to the value's own number
def sparse_forward(x, values, positions):
    inputs = positions + np.arange(values.shape[1])
    return (x[:, inputs] * values).sum(axis=-1)


# == sparse_forward: wrong, the first row's positions
def sparse_forward(x, values, positions):
    starts = np.arange(values.shape[1]) // 2 * 4
    return x[:, starts + positions[0]] @ values.T


# == sparse_forward: wrong, the values are missing
def sparse_forward(x, values, positions):
    starts = np.arange(values.shape[1]) // 2 * 4
    return x[:, starts + positions].sum(axis=-1)


# == sparse_forward: wrong, it raises IndexError
def sparse_forward(x, values, positions):
    inputs = 4 * np.arange(values.shape[1]) + positions
    return (x[:, inputs] * values).sum(axis=-1)


# == sparse_forward: wrong, only the second value of each group
def sparse_forward(x, values, positions):
    W = np.zeros((len(values), x.shape[1] // 4, 4))
    for o in range(len(values)):
        for g in range(x.shape[1] // 4):
            for k in (2 * g, 2 * g + 1):
                W[o, g] = np.eye(4)[positions[o, k]] * values[o, k]
    return x @ W.reshape(len(values), -1).T


# == int8_lora_backward: right, with the weight made dense
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    W_hat = scales.reshape(-1, 1) * codes.astype(float)
    du = s * np.einsum("no,or->nr", dy, B)
    return dy @ W_hat + du @ A, du.T @ x, s * dy.T @ x @ A.T


# == int8_lora_backward: right, output by output
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    dx, dA, dB = np.zeros_like(x), np.zeros_like(A), np.zeros_like(B)
    for o in range(len(codes)):
        d = dy[:, o]
        dx += np.outer(d, scales[o] * codes[o] + s * B[o] @ A)
        dA += s * np.outer(B[o], d @ x)
        dB[o] = s * (d @ x) @ A.T
    return dx, dA, dB


# == int8_lora_backward: wrong, their rows' scales are missing
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    du = s * dy @ B
    return dy @ codes + du @ A, du.T @ x, s * dy.T @ (x @ A.T)


# == int8_lora_backward: wrong, have reached the adapter's path
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    weight = scales[:, None] * (codes + s * B @ A)
    du = s * dy @ B
    return dy @ weight, du.T @ x, s * dy.T @ (x @ A.T)


# == int8_lora_backward: wrong, W is frozen, and x goes through it all the same
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    du = s * dy @ B
    return du @ A, du.T @ x, s * dy.T @ (x @ A.T)


# == int8_lora_backward: wrong, have got into du
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    d = dy * scales
    du = s * d @ B
    return d @ codes + s * dy @ B @ A, du.T @ x, s * dy.T @ (x @ A.T)


# == int8_lora_backward: wrong, have got into dB
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    d = dy * scales
    return d @ codes + s * dy @ B @ A, (s * dy @ B).T @ x, s * d.T @ (x @ A.T)


# == int8_lora_backward: wrong, divided by α/r
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    du = s * dy @ B
    return (scales * dy) @ codes + du @ A, du.T @ x, dy.T @ (x @ A.T)


# == int8_lora_backward: wrong, are divided by their rows' scales
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    du = s * dy @ B
    return dy @ (codes / scales[:, None]) + du @ A, du.T @ x, s * dy.T @ (x @ A.T)


# == int8_lora_backward: wrong, it raises ValueError: operands could not be broadcast
def int8_lora_backward(dy, x, codes, scales, A, B, s):
    du = s * dy @ B
    return scales * (dy @ codes) + du @ A, du.T @ x, s * dy.T @ (x @ A.T)


# == merge_back: right, row by row
def merge_back(codes, scales, A, B, s):
    new_codes, new_scales, error, size = np.zeros(codes.shape), np.zeros(len(codes)), 0.0, 0.0
    for o in range(len(codes)):
        change = s * (B[o] @ A)
        row = scales[o] * codes[o] + change
        new_scales[o] = np.abs(row).max() / 127
        new_codes[o] = np.round(row / new_scales[o])
        error += np.sum((new_scales[o] * new_codes[o] - row) ** 2)
        size += np.sum(change**2)
    return new_codes, new_scales, (error / size) ** 0.5


# == merge_back: right, counted in old steps
def merge_back(codes, scales, A, B, s):
    steps = s * np.einsum("or,ri->oi", B / scales[:, None], A)
    total = codes + steps
    wider = np.max(np.abs(total), axis=1, keepdims=True) / 127
    new_codes = np.rint(total / wider)
    moved = scales[:, None] * (new_codes * wider - total)
    size = np.linalg.norm(scales[:, None] * steps)
    return new_codes.astype(np.int8), scales * wider[:, 0], np.linalg.norm(moved) / size


# == merge_back: wrong, the old rulers are kept
def merge_back(codes, scales, A, B, s):
    V = scales[:, None] * codes + s * B @ A
    new_scales = np.abs(V).max(axis=1) / 127
    new_codes = np.rint(V / scales[:, None])
    lost = np.linalg.norm(new_scales[:, None] * new_codes - V) / np.linalg.norm(s * B @ A)
    return new_codes, new_scales, lost


# == merge_back: wrong, a row's largest weight has changed
def merge_back(codes, scales, A, B, s):
    delta = s * B @ A
    new_codes = np.clip(codes + np.rint(delta / scales[:, None]), -127, 127)
    lost = np.linalg.norm(scales[:, None] * (new_codes - codes) - delta) / np.linalg.norm(delta)
    return new_codes, scales.copy(), lost


# == merge_back: wrong, relative to Ŵ + ΔW
def merge_back(codes, scales, A, B, s):
    V = scales[:, None] * codes + s * B @ A
    new_scales = np.abs(V).max(axis=1) / 127
    new_codes = np.rint(V / new_scales[:, None])
    return new_codes, new_scales, np.linalg.norm(new_scales[:, None] * new_codes - V) / np.linalg.norm(V)


# == merge_back: wrong, how far the weights have moved
def merge_back(codes, scales, A, B, s):
    W_hat = scales[:, None] * codes
    delta = s * B @ A
    new_scales = np.abs(W_hat + delta).max(axis=1) / 127
    new_codes = np.rint((W_hat + delta) / new_scales[:, None])
    return new_codes, new_scales, np.linalg.norm(new_scales[:, None] * new_codes - W_hat) / np.linalg.norm(delta)


# == merge_back: wrong, a share of the energy
def merge_back(codes, scales, A, B, s):
    delta = s * B @ A
    V = scales[:, None] * codes + delta
    new_scales = np.abs(V).max(axis=1) / 127
    new_codes = np.rint(V / new_scales[:, None])
    return new_codes, new_scales, np.sum((new_scales[:, None] * new_codes - V) ** 2) / np.sum(delta**2)


# == merge_back: wrong, which count in different steps
def merge_back(codes, scales, A, B, s):
    delta = s * B @ A
    V = scales[:, None] * codes + delta
    scale_of_delta = np.abs(delta).max(axis=1) / 127
    new_scales = np.abs(V).max(axis=1) / 127
    new_codes = codes + np.rint(delta / scale_of_delta[:, None])
    lost = np.linalg.norm(new_scales[:, None] * new_codes - V) / np.linalg.norm(delta)
    return new_codes, new_scales, lost


# == merge_back: wrong, s is missing in ΔW
def merge_back(codes, scales, A, B, s):
    delta = B @ A
    V = scales[:, None] * codes + delta
    new_scales = np.abs(V).max(axis=1) / 127
    new_codes = np.rint(V / new_scales[:, None])
    lost = np.linalg.norm(new_scales[:, None] * new_codes - V) / np.linalg.norm(delta)
    return new_codes, new_scales, lost


# == merge_back: wrong, those are counted in steps
def merge_back(codes, scales, A, B, s):
    delta = s * B @ A
    V = codes + delta
    new_scales = np.abs(V).max(axis=1) / 127
    new_codes = np.rint(V / new_scales[:, None])
    return new_codes, new_scales, np.linalg.norm(new_scales[:, None] * new_codes - V) / np.linalg.norm(delta)


# == merge_back: wrong, compared with itself
def merge_back(codes, scales, A, B, s):
    delta = s * B @ A
    V = scales[:, None] * codes + delta
    new_scales = np.abs(V).max(axis=1) / 127
    new_codes = np.rint(V / new_scales[:, None])
    back = codes * scales[:, None] + delta
    return new_codes, new_scales, np.linalg.norm(back - V) / np.linalg.norm(delta)
