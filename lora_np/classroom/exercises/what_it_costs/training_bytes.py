"""Bytes of a step.

Now memory, at first without activations. A frozen base has `n_base` numbers of `base_itemsize` bytes each. An adapter
has `n_adapter` numbers of `itemsize` bytes each; it is trained with AdamW, and gradients and moments have its itemsize.
Give the bytes of all parameters, of the gradients, and of both moments together.

**Predict,** before you use your function: a base of 7 billion numbers in 16 bits, an adapter of 4 million in 32 bits:
do these three fit into a machine with 16 GB? How much is full fine-tuning of the same model, everything in 32 bits?
(Which arguments give that?) Which large item is left with LoRA, and how would you make it smaller?
"""

POINTS = 3
OUTPUTS = ("parameters", "gradients", "moments")
HINTS = {
    "parameters": "What must be there for the forward pass, and in how many bytes each?",
    "gradients": "Which numbers does the optimiser move?",
    "moments": "AdamW keeps two running means. Of what, and for which numbers?",
}
FORMULA = """parameters = n_base · base_itemsize + n_adapter · itemsize
gradients = n_adapter · itemsize,  moments = 2 · n_adapter · itemsize"""


def training_bytes(n_base, n_adapter, base_itemsize, itemsize):
    """Whole numbers -> parameters, gradients, moments, in bytes."""
    base = n_base * base_itemsize
    adapter = n_adapter * itemsize
    parameters = base + adapter  # all of them: the forward pass needs every one
    gradients = adapter  # one for each number that is trained, and none for the base
    moments = 2 * adapter  # AdamW's mu and nu, as many each
    return parameters, gradients, moments
    # 14 GB, and 64 MB for all that belongs to the adapter: it fits, with little room for activations. In full it is
    # training_bytes(0, 7_000_000_000, 4, 4): 28 + 28 + 56 = 112 GB. What is left is the frozen base itself, which is
    # smaller in fewer bits: lesson 12.


def draw(rng, size):
    """A base much larger than what is trained, as in practice, and in fewer bytes a number."""
    base_itemsize, itemsize = ((1, 4), (2, 4), (1, 2))[size.number]
    numbers = {"n_base": int(rng.integers(20_000, 40_000)), "n_adapter": int(rng.integers(100, 400))}
    return {**numbers, "base_itemsize": base_itemsize, "itemsize": itemsize}


MISTAKES = {
    "parameters": [("the two itemsizes are exchanged", lambda i: i.n_base * i.itemsize + i.n_adapter * i.base_itemsize)]
}
