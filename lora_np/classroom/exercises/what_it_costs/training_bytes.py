"""4. The memory of a training step (3 points).

This exercise leaves out the activations, which the next exercise counts. A frozen base has `n_base` parameters of
`base_itemsize` bytes each. An adapter has `n_adapter` parameters of `itemsize` bytes each. The adapter is trained with
AdamW, and the entries of its gradients and moments also take `itemsize` bytes each. Compute how many bytes the
parameters, gradients and moments take.

**Predict,** before you use your function: for a base of 7 billion 16-bit parameters and an adapter of 4 million 32-bit
parameters, do these three items fit into 16 GB? How much memory does full fine-tuning of the same model need, with
everything in 32 bits? (Which arguments give this?) Which large item remains with LoRA, and how would you reduce it?
"""

HINTS = {
    "parameters": "Which parameters does the forward pass need, and how many bytes does each take?",
    "gradients": "Which parameters does the optimiser update?",
    "moments": "AdamW stores two running means. Of what, and for which parameters?",
}
FORMULA = """parameters = n_base · base_itemsize + n_adapter · itemsize
gradients = n_adapter · itemsize,  moments = 2 · n_adapter · itemsize"""


def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    """All arguments ints -> parameters, gradients, moments, in bytes."""
    base = n_base * base_itemsize
    adapter = n_adapter * itemsize
    parameters = base + adapter  # the forward pass needs all of them
    gradients = adapter  # one number for each trainable parameter, and none for the base
    moments = 2 * adapter  # AdamW's mu and nu
    return parameters, gradients, moments
    # The base takes 14 GB, and everything that belongs to the adapter takes 64 MB: together they fit, with little room
    # for activations. Full fine-tuning takes training_bytes(0, 7_000_000_000, 4, 4): 28 + 28 + 56 = 112 GB. The frozen
    # base remains, and lesson 12 stores it in fewer bits.


def draw(rng, size):
    """Draw a base that has far more parameters than the adapter, as in practice, and fewer bytes per parameter."""
    base_itemsize, itemsize = ((1, 4), (2, 4), (1, 2))[size.number]
    numbers = {"n_base": int(rng.integers(20_000, 40_000)), "n_adapter": int(rng.integers(100, 400))}
    return {**numbers, "base_itemsize": base_itemsize, "itemsize": itemsize}


MISTAKES = {
    "the frozen base has gradients as well": ("gradients = adapter", "gradients = adapter + n_base * itemsize"),
    "the two item sizes are swapped": lambda i: i.n_base * i.itemsize + i.n_adapter * i.base_itemsize,
}
