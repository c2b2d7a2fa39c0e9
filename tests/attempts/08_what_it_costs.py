"""Attempts at exercise set 08. Each begins with `# ==`, the item, and what it is: right; or wrong, and after it words
of the diagnosis that it has to get."""

# == adapter_parameters: right, by making the factors
def adapter_parameters(shapes, targets, r):
    factors = []
    for name in shapes:
        if any(name.endswith(f".{target}.weight") for target in targets):
            n_out, n_in = shapes[name]
            factors += [np.zeros((n_out, r)), np.zeros((r, n_in))]
    return sum(factor.size for factor in factors)


# == adapter_parameters: right, block by block
def adapter_parameters(shapes, targets, r):
    count, block = 0, 0
    while f"blocks.{block}.ln1.weight" in shapes:
        for part in ("attn", "mlp"):
            for target in targets:
                sides = shapes.get(f"blocks.{block}.{part}.{target}.weight", (0, 0))
                count += r * sum(sides)
        block += 1
    return float(count)


# == adapter_parameters: right, of two axes and of the right name
def adapter_parameters(shapes, targets, r):
    return r * sum(a + b for (*_, name, leaf), (a, b) in
                   [(n.split("."), s) for n, s in shapes.items() if len(s) == 2] if name in targets)


# == adapter_parameters: wrong, this is one block's count
def adapter_parameters(shapes, targets, r):
    return sum(r * sum(shape) for name, shape in shapes.items()
               if name.startswith("blocks.0.") and name.split(".")[-2] in targets and name.endswith("weight"))


# == adapter_parameters: wrong, biases are taken for layers
def adapter_parameters(shapes, targets, r):
    trained = 0
    for name, shape in shapes.items():
        if any(target in name for target in targets):
            trained += r * sum(shape)
    return trained


# == adapter_parameters: wrong, all six linear layers of a block
def adapter_parameters(shapes, targets, r):
    return sum(r * (shape[0] + shape[1]) for name, shape in shapes.items() if name.endswith("_proj.weight"))


# == adapter_parameters: wrong, every matrix of the model
def adapter_parameters(shapes, targets, r):
    return sum(r * sum(shape) for shape in shapes.values() if len(shape) == 2)


# == adapter_parameters: wrong, the targets' matrices are counted, which are frozen
def adapter_parameters(shapes, targets, r):
    return sum(int(np.prod(shape)) for name, shape in shapes.items()
               if name.split(".")[-2] in targets and len(shape) == 2)


# == adapter_parameters: wrong, as if they were A
def adapter_parameters(shapes, targets, r):
    return sum(2 * r * shape[1] for name, shape in shapes.items()
               if name.split(".")[-2] in targets and len(shape) == 2)


# == adapter_parameters: wrong, only the last of the targets
def adapter_parameters(shapes, targets, r):
    for target in targets:
        trained = 0
        for name, shape in shapes.items():
            if name.endswith(target + ".weight"):
                trained += r * sum(shape)
    return trained


# == adapter_parameters: wrong, divided by r
def adapter_parameters(shapes, targets, r):
    return sum(sum(shape) for name, shape in shapes.items()
               if name.split(".")[-2] in targets and len(shape) == 2)


# == adapter_parameters: wrong, it raises ValueError
def adapter_parameters(shapes, targets, r):
    trained = 0
    for name, shape in shapes.items():
        if name.split(".")[-2] in targets:
            n_out, n_in = shape
            trained += r * (n_out + n_in)
    return trained


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


# == layer_flops: right, as shares of the wide product
def layer_flops(N, n_in, n_out, r):
    wide = 2.0 * N * n_in * n_out
    share = r * (n_in + n_out) / (n_in * n_out)
    return {
        "full_forward": wide,
        "full_backward": 2 * wide,
        "lora_forward": wide * (1 + share),
        "lora_backward": wide * (1 + 2 * share),
    }


# == layer_flops: wrong, one multiplication and one addition
def layer_flops(N, n_in, n_out, r):
    wide, thin = N * n_in * n_out, N * r * (n_in + n_out)
    return wide, 2 * wide, wide + thin, wide + 2 * thin


# == layer_flops: wrong, dW is counted, and W is frozen
def layer_flops(N, n_in, n_out, r):
    wide, thin = 2 * N * n_in * n_out, 2 * N * r * (n_in + n_out)
    return wide, 2 * wide, wide + thin, 2 * (wide + thin)


# == layer_flops: wrong, dy W is missing
def layer_flops(N, n_in, n_out, r):
    wide, thin = 2 * N * n_in * n_out, 2 * N * r * (n_in + n_out)
    return wide, 2 * wide, wide + thin, 2 * thin


# == layer_flops: wrong, B A is formed and added to W
def layer_flops(N, n_in, n_out, r):
    wide, thin = 2 * N * n_in * n_out, 2 * N * r * (n_in + n_out)
    return wide, 2 * wide, wide + 2 * n_out * r * n_in, wide + 2 * thin


# == layer_flops: wrong, the sides out and r is missing
def layer_flops(N, n_in, n_out, r):
    wide, down, up = 2 * N * n_in * n_out, 2 * N * n_in * r, 2 * N * r * n_out
    return wide, 2 * wide, wide + down + up, wide + down + down + up


# == layer_flops: wrong, two of the four thin products
def layer_flops(N, n_in, n_out, r):
    wide, thin = 2 * N * n_in * n_out, 2 * N * r * (n_in + n_out)
    return wide, 2 * wide, wide + thin, wide + thin


# == layer_flops: wrong, du is computed twice
def layer_flops(N, n_in, n_out, r):
    wide, down, up = 2 * N * n_in * n_out, 2 * N * n_in * r, 2 * N * r * n_out
    through_A, through_B = up + down, up
    return wide, 2 * wide, wide + down + up, wide + through_A + through_B + (up + down)


# == layer_flops: wrong, is one of the two products missing
def layer_flops(N, n_in, n_out, r):
    wide, thin = 2 * N * n_in * n_out, 2 * N * r * (n_in + n_out)
    return wide, wide, wide + thin, wide + 2 * thin


# == layer_flops: wrong, of the k additions of a sum the first
def layer_flops(N, n_in, n_out, r):
    def product(n, k, m):
        return n * m * (k + k - 1)

    wide, thin = product(N, n_in, n_out), 2 * N * r * (n_in + n_out)
    return wide, product(N, n_out, n_in) + product(n_out, N, n_in), 2 * N * n_in * n_out + thin, \
        2 * N * n_in * n_out + 2 * thin


# == layer_flops: wrong, a sum of whole arrays
def layer_flops(N, n_in, n_out, r):
    wide, thin = 2 * N * n_in * n_out, 2 * N * r * (n_in + n_out)
    return wide + N * n_out, 2 * wide, wide + thin + N * n_out, wide + 2 * thin


# == layer_flops: wrong, this is for one row
def layer_flops(N, n_in, n_out, r):
    wide, thin = 2 * n_in * n_out, 2 * r * (n_in + n_out)
    return wide, 2 * wide, wide + thin, wide + 2 * thin


# == merging_pays_from: right, by trying
def merging_pays_from(n_in, n_out, r):
    rows = 0
    while True:
        attached = rows * 2 * (n_in * n_out + r * n_in + r * n_out)
        merged = 2 * n_out * r * n_in + rows * 2 * n_in * n_out
        if merged < attached:
            return rows
        rows += 1


# == merging_pays_from: right, with a remainder
def merging_pays_from(n_in, n_out, r):
    rows, left = divmod(n_in * n_out, n_in + n_out)
    return rows + 1 if left >= 0 else rows


# == merging_pays_from: right, in fractions
def merging_pays_from(n_in, n_out, r):
    from fractions import Fraction

    equal = 1 / (Fraction(1, n_in) + Fraction(1, n_out))
    return float(equal.numerator // equal.denominator + 1)


# == merging_pays_from: wrong, merging has not cost less yet
def merging_pays_from(n_in, n_out, r):
    return int(np.ceil(n_in * n_out / (n_in + n_out)))


# == merging_pays_from: wrong, merging has not cost less yet
def merging_pays_from(n_in, n_out, r):
    return n_in * n_out // (n_in + n_out)


# == merging_pays_from: wrong, merging has not cost less yet
def merging_pays_from(n_in, n_out, r):
    return (2 * n_out * r * n_in) / (2 * r * (n_in + n_out))


# == merging_pays_from: wrong, it is no whole number
def merging_pays_from(n_in, n_out, r):
    return 1 + (2 * n_out * r * n_in) / (2 * r * (n_in + n_out))


# == merging_pays_from: wrong, it grows with r
def merging_pays_from(n_in, n_out, r):
    return (2 * n_out * r * n_in) // (2 * (n_in + n_out)) + 1


# == merging_pays_from: wrong, u = x Aᵀ alone
def merging_pays_from(n_in, n_out, r):
    return (2 * n_out * r * n_in) // (2 * n_in * r) + 1


# == merging_pays_from: wrong, additions are counted on one side alone
def merging_pays_from(n_in, n_out, r):
    return (n_out * r * n_in) // (2 * r * (n_in + n_out)) + 1


# == merging_pays_from: wrong, one row fewer is enough
def merging_pays_from(n_in, n_out, r):
    rows = 0
    while rows * 2 * r * (n_in + n_out) <= 2 * n_out * r * n_in:
        rows += 1
    return rows + 1


# == merging_pays_from: wrong, adding s B A to W is counted
def merging_pays_from(n_in, n_out, r):
    merging = 2 * n_out * r * n_in + n_out * n_in
    return merging // (2 * r * (n_in + n_out)) + 1


# == training_bytes: right, by arrays
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    base, adapter = np.zeros((n_base, base_itemsize), np.uint8), np.zeros((n_adapter, itemsize), np.uint8)
    gradients, m, v = (np.zeros_like(adapter) for _ in range(3))
    return base.nbytes + adapter.nbytes, gradients.nbytes, m.nbytes + v.nbytes


# == training_bytes: right, as a table
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    held = np.array([[1, 1], [0, 1], [0, 2]])  # parameters, gradients, moments of base and adapter
    return tuple(held @ np.array([n_base * base_itemsize, n_adapter * itemsize]))


# == training_bytes: wrong, the base is counted in, and it is frozen
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    parameters = n_base * base_itemsize + n_adapter * itemsize
    return parameters, parameters, 2 * parameters


# == training_bytes: wrong, the base is missing
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    adapter = n_adapter * itemsize
    return adapter, adapter, 2 * adapter


# == training_bytes: wrong, this is one moment
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    adapter = n_adapter * itemsize
    return n_base * base_itemsize + adapter, adapter, adapter


# == training_bytes: wrong, the adapter's own numbers are missing
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    return n_base * base_itemsize, n_adapter * itemsize, 2 * n_adapter * itemsize


# == training_bytes: wrong, taken to have the base's bytes
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    adapter = n_adapter * base_itemsize
    return n_base * base_itemsize + adapter, adapter, 2 * adapter


# == training_bytes: wrong, times 8 (bits for bytes)
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    adapter = 8 * n_adapter * itemsize
    return 8 * n_base * base_itemsize + adapter, adapter, 2 * adapter


# == training_bytes: wrong, the gradients are counted in
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    adapter = n_adapter * itemsize
    return n_base * base_itemsize + adapter, adapter, 3 * adapter


# == training_bytes: wrong, these are numbers, not bytes
def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    return n_base + n_adapter, n_adapter, 2 * n_adapter


# == kept_inputs: right, by cases
def kept_inputs(N, C, F, targets, r, itemsize):
    columns = 0
    if "q_proj" in targets or "k_proj" in targets or "v_proj" in targets:
        columns += C
    columns += C * ("o_proj" in targets) + C * ("up_proj" in targets) + F * ("down_proj" in targets)
    columns += r * len(targets)
    return (3 * C + F) * N * itemsize, columns * N * itemsize


# == kept_inputs: right, with arrays that are kept by name
def kept_inputs(N, C, F, targets, r, itemsize):
    h, context, h2, gelu = (np.empty((N, width, itemsize), np.uint8) for width in (C, C, C, F))
    read = dict(q_proj=h, k_proj=h, v_proj=h, o_proj=context, up_proj=h2, down_proj=gelu)

    def size(kept):
        return sum(array.nbytes for array in {id(array): array for array in kept}.values())

    thin = [np.empty((N, r, itemsize), np.uint8) for _ in targets]
    return size(read.values()), size([read[target] for target in targets] + thin)


# == kept_inputs: wrong, each layer has an array of its own
def kept_inputs(N, C, F, targets, r, itemsize):
    reads = {"q_proj": C, "k_proj": C, "v_proj": C, "o_proj": C, "up_proj": C, "down_proj": F}
    return N * itemsize * sum(reads.values()), N * itemsize * sum(reads[target] + r for target in targets)


# == kept_inputs: wrong, the same array have one each
def kept_inputs(N, C, F, targets, r, itemsize):
    reads = {"q_proj": C, "k_proj": C, "v_proj": C, "o_proj": C, "up_proj": C, "down_proj": F}
    return N * itemsize * (3 * C + F), N * itemsize * sum(reads[target] + r for target in targets)


# == kept_inputs: wrong, the thin u of each adapter is missing
def kept_inputs(N, C, F, targets, r, itemsize):
    reads = {"q_proj": "h", "k_proj": "h", "v_proj": "h", "o_proj": "o", "up_proj": "h2", "down_proj": "g"}
    columns = {"h": C, "o": C, "h2": C, "g": F}
    kept = sum(columns[array] for array in {reads[target] for target in targets})
    return (3 * C + F) * N * itemsize, kept * N * itemsize


# == kept_inputs: wrong, only the thin u's are there
def kept_inputs(N, C, F, targets, r, itemsize):
    return (3 * C + F) * N * itemsize, len(targets) * r * N * itemsize


# == kept_inputs: wrong, the inputs of all six layers are kept
def kept_inputs(N, C, F, targets, r, itemsize):
    full = (3 * C + F) * N * itemsize
    return full, full + len(targets) * r * N * itemsize


# == kept_inputs: wrong, there is one u here
def kept_inputs(N, C, F, targets, r, itemsize):
    reads = {"q_proj": "h", "k_proj": "h", "v_proj": "h", "o_proj": "o", "up_proj": "h2", "down_proj": "g"}
    columns = {"h": C, "o": C, "h2": C, "g": F, "u": r}
    kept = {reads[target] for target in targets} | {"u"}
    return (3 * C + F) * N * itemsize, sum(columns[array] for array in kept) * N * itemsize


# == kept_inputs: wrong, two thin arrays are kept
def kept_inputs(N, C, F, targets, r, itemsize):
    columns = C * any(target[0] in "qkv" for target in targets)
    columns += C * ("o_proj" in targets) + C * ("up_proj" in targets) + F * ("down_proj" in targets)
    return (3 * C + F) * N * itemsize, (columns + 2 * r * len(targets)) * N * itemsize


# == kept_inputs: wrong, two arrays have F columns here
def kept_inputs(N, C, F, targets, r, itemsize):
    columns = C * any(target[0] in "qkv" for target in targets)
    columns += C * ("o_proj" in targets) + F * ("up_proj" in targets) + F * ("down_proj" in targets)
    return (2 * C + 2 * F) * N * itemsize, (columns + r * len(targets)) * N * itemsize


# == kept_inputs: wrong, divided by itemsize
def kept_inputs(N, C, F, targets, r, itemsize):
    columns = C * any(target[0] in "qkv" for target in targets)
    columns += C * ("o_proj" in targets) + C * ("up_proj" in targets) + F * ("down_proj" in targets)
    return (3 * C + F) * N, (columns + r * len(targets)) * N


# == chain_flops: right, with the lowest adapter sought first
def chain_flops(N, widths, ranks):
    lowest = next(layer for layer, r in enumerate(ranks) if r > 0)
    forward = backward = 0
    for layer, r in enumerate(ranks):
        n_in, n_out = widths[layer], widths[layer + 1]
        forward += 2 * N * n_in * n_out + 2 * N * n_in * r + 2 * N * r * n_out
        if r:
            backward += 2 * N * n_out * r  # du
            backward += 2 * N * r * n_in  # dA
            backward += 2 * N * n_out * r  # dB
        if layer > lowest:
            backward += 2 * N * n_out * n_in + 2 * N * r * n_in
    return forward, backward


# == chain_flops: right, from the top down, with arrays
def chain_flops(N, widths, ranks):
    n_in, n_out, r = np.array(widths[:-1]), np.array(widths[1:]), np.array(ranks)
    below = np.concatenate([[0], np.cumsum(r)[:-1]]) > 0
    forward = n_in * n_out + r * (n_in + n_out)
    backward = r * (n_in + 2 * n_out) + below * n_in * (n_out + r)
    return 2 * N * forward.sum(), 2 * N * backward.sum()


# == chain_flops: right, a recursion
def chain_flops(N, widths, ranks):
    if not ranks:
        return 0, 0
    forward, backward = chain_flops(N, widths[:-1], ranks[:-1])
    n_in, n_out, r = widths[-2], widths[-1], ranks[-1]
    forward += 2 * N * (n_in * n_out + n_in * r + r * n_out)
    backward += 2 * N * (n_out * r + n_in * r + n_out * r)
    if sum(ranks[:-1]):
        backward += 2 * N * n_in * (n_out + r)
    return forward, backward


# == chain_flops: wrong, dx is counted all the way down
def chain_flops(N, widths, ranks):
    forward = backward = 0
    for n_in, n_out, r in zip(widths, widths[1:], ranks):
        forward += 2 * N * (n_in * n_out + r * (n_in + n_out))
        backward += 2 * N * (n_in * n_out + 2 * r * (n_in + n_out))
    return forward, backward


# == chain_flops: wrong, the lowest layer that has an adapter hands a dx on
def chain_flops(N, widths, ranks):
    forward = backward = 0
    reached = False
    for n_in, n_out, r in zip(widths, widths[1:], ranks):
        forward += 2 * N * (n_in * n_out + r * (n_in + n_out))
        reached = reached or r > 0
        if reached:
            backward += 2 * N * (n_in * n_out + 2 * r * (n_in + n_out))
    return forward, backward


# == chain_flops: wrong, only layers that have an adapter hand a dx on
def chain_flops(N, widths, ranks):
    forward = backward = 0
    below = False
    for n_in, n_out, r in zip(widths, widths[1:], ranks):
        forward += 2 * N * (n_in * n_out + r * (n_in + n_out))
        if r:
            backward += 2 * N * r * (n_in + 2 * n_out)
            if below:
                backward += 2 * N * n_in * (n_out + r)
            below = True
    return forward, backward


# == chain_flops: wrong, every layer that has an adapter hands a dx on
def chain_flops(N, widths, ranks):
    forward = backward = 0
    for n_in, n_out, r in zip(widths, widths[1:], ranks):
        forward += 2 * N * (n_in * n_out + r * (n_in + n_out))
        if r:
            backward += 2 * N * (n_in * n_out + 2 * r * (n_in + n_out))
    return forward, backward


# == chain_flops: wrong, above the highest adapter no dx is counted
def chain_flops(N, widths, ranks):
    forward = backward = 0
    for layer, (n_in, n_out, r) in enumerate(zip(widths, widths[1:], ranks)):
        forward += 2 * N * (n_in * n_out + r * (n_in + n_out))
        backward += 2 * N * r * (n_in + 2 * n_out)
        if any(ranks[:layer]) and any(ranks[layer:]):
            backward += 2 * N * n_in * (n_out + r)
    return forward, backward


# == chain_flops: wrong, the way is cut at the wrong end
def chain_flops(N, widths, ranks):
    forward = backward = 0
    for layer, (n_in, n_out, r) in enumerate(zip(widths, widths[1:], ranks)):
        forward += 2 * N * (n_in * n_out + r * (n_in + n_out))
        backward += 2 * N * r * (n_in + 2 * n_out)
        if any(ranks[layer + 1 :]):
            backward += 2 * N * n_in * (n_out + r)
    return forward, backward


# == chain_flops: wrong, du A is missing
def chain_flops(N, widths, ranks):
    forward = backward = 0
    for layer, (n_in, n_out, r) in enumerate(zip(widths, widths[1:], ranks)):
        forward += 2 * N * (n_in * n_out + r * (n_in + n_out))
        backward += 2 * N * r * (n_in + 2 * n_out)
        if any(ranks[:layer]):
            backward += 2 * N * n_in * n_out
    return forward, backward


# == chain_flops: wrong, the lowest adapter's du is missing
def chain_flops(N, widths, ranks):
    forward = backward = 0
    for layer, (n_in, n_out, r) in enumerate(zip(widths, widths[1:], ranks)):
        forward += 2 * N * (n_in * n_out + r * (n_in + n_out))
        backward += 2 * N * r * (n_in + n_out)  # dA, dB
        if any(ranks[:layer]):
            backward += 2 * N * (n_in * n_out + r * n_out + r * n_in)  # dy W, du, du A
    return forward, backward


# == chain_flops: wrong, dW is counted in every layer
def chain_flops(N, widths, ranks):
    forward = backward = 0
    for layer, (n_in, n_out, r) in enumerate(zip(widths, widths[1:], ranks)):
        forward += 2 * N * (n_in * n_out + r * (n_in + n_out))
        backward += 2 * N * (n_in * n_out + r * (n_in + 2 * n_out))
        if any(ranks[:layer]):
            backward += 2 * N * n_in * (n_out + r)
    return forward, backward


# == chain_flops: wrong, the adapters' products are missing
def chain_flops(N, widths, ranks):
    lowest = [r > 0 for r in ranks].index(True)
    wide = [2 * N * n_in * n_out for n_in, n_out in zip(widths, widths[1:])]
    return sum(wide), sum(wide[lowest + 1 :])


# == chain_flops: wrong, it is twice the way forward
def chain_flops(N, widths, ranks):
    forward = sum(2 * N * (a * b + r * (a + b)) for a, b, r in zip(widths, widths[1:], ranks))
    return forward, 2 * forward
