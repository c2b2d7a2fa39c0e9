"""Attempts at exercise set 10: `# ==`, the exercise, and right; or wrong, and words of the diagnosis."""
# == adapter_parameters: right, of two axes and of the right name
def adapter_parameters(shapes, targets, r):
    return r * sum(a + b for (*_, name, leaf), (a, b) in
                   [(n.split("."), s) for n, s in shapes.items() if len(s) == 2] if name in targets)

# == adapter_parameters: wrong, the condition ignores whether layer in targets
def adapter_parameters(shapes, targets, r):
    return sum(r * sum(shape) for shape in shapes.values() if len(shape) == 2)

# == layer_flops: right, product by product
def layer_flops(N, n_in, n_out, r):
    def product(n, k, m):
        return 2 * n * k * m

    full = [product(N, n_in, n_out)], [product(N, n_out, n_in), product(n_out, N, n_in)]
    lora = (
        [product(N, n_in, n_out), product(N, n_in, r), product(N, r, n_out)],
        [product(N, n_out, n_in), product(N, n_out, r), product(N, r, n_in), product(r, N, n_in), product(n_out, N, r)],
    )
    return [sum(products) for products in (*full, *lora)]

# == layer_flops: wrong, an intermediate result lacks the factor 2
def layer_flops(N, n_in, n_out, r):
    wide, thin = N * n_in * n_out, N * r * (n_in + n_out)
    return wide, 2 * wide, wide + thin, wide + 2 * thin

# == merging_pays_from: right, with a remainder
def merging_pays_from(n_in, n_out, r):
    rows, left = divmod(n_in * n_out, n_in + n_out)
    return rows + 1 if left >= 0 else rows

# == merging_pays_from: wrong, it is one too small
def merging_pays_from(n_in, n_out, r):
    return int(np.ceil(n_in * n_out / (n_in + n_out)))

# == training_bytes: right, by arrays
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    base, adapter = np.zeros((n_base, base_itemsize), np.uint8), np.zeros((n_adapter, itemsize), np.uint8)
    gradients, m, v = (np.zeros_like(adapter) for _ in range(3))
    return base.nbytes + adapter.nbytes, gradients.nbytes, m.nbytes + v.nbytes

# == training_bytes: wrong, parameters lacks the term adapter
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    return n_base * base_itemsize, n_adapter * itemsize, 2 * n_adapter * itemsize

# == kept_inputs: right, with arrays that are kept by name
def kept_inputs(N, C, F, targets, r, itemsize):
    h, context, h2, gelu = (np.empty((N, width, itemsize), np.uint8) for width in (C, C, C, F))
    read = dict(q_proj=h, k_proj=h, v_proj=h, o_proj=context, up_proj=h2, down_proj=gelu)

    def size(kept):
        return sum(array.nbytes for array in {id(array): array for array in kept}.values())

    thin = [np.empty((N, r, itemsize), np.uint8) for _ in targets]
    return size(read.values()), size([read[target] for target in targets] + thin)

# == kept_inputs: wrong, lora lacks the term sum((columns[array] for array in arrays))
def kept_inputs(N, C, F, targets, r, itemsize):
    return (3 * C + F) * N * itemsize, len(targets) * r * N * itemsize

# == chain_flops: right, from the top down, with arrays
def chain_flops(N, widths, ranks):
    n_in, n_out, r = np.array(widths[:-1]), np.array(widths[1:]), np.array(ranks)
    below = np.concatenate([[0], np.cumsum(r)[:-1]]) > 0
    forward = n_in * n_out + r * (n_in + n_out)
    backward = r * (n_in + 2 * n_out) + below * n_in * (n_out + r)
    return 2 * N * forward.sum(), 2 * N * backward.sum()

# == chain_flops: wrong, it is forward times 2
def chain_flops(N, widths, ranks):
    forward = sum(2 * N * (a * b + r * (a + b)) for a, b, r in zip(widths, widths[1:], ranks))
    return forward, 2 * forward
