"""What is kept for the backward pass.

Activations. A linear layer keeps what the gradients of its **weights** will read: for `dW = dyᵀ x` its input; for
`dA = duᵀ x` and `dB = s dyᵀ u` also its input, and `u` (N, r). A frozen layer without an adapter keeps nothing. (`dy`
and `du` come from above on the way back; weights are parameters.) An array that several layers keep is stored once.

Count the bytes for the six linear layers of one block in the middle of a model: `full`, all six `W` are trained;
`lora`, the layers in `targets` have adapters of rank `r`, and nothing else is trained. A number has `itemsize` bytes.
Look up in lesson 05 what each of the six reads, and note how wide it is: C columns or F?

**Predict:** LoRA on all six layers: does it keep more than full fine-tuning here, or less? Which single target costs
most? And what does `k_proj` add if `q_proj` and `v_proj` are targets already?
"""

POINTS = 4
OUTPUTS = ("full", "lora")
HINTS = {
    "full": "Which four arrays do the six layers read? How many columns does each have?",
    "lora": "dA = duᵀ x and dB = s dyᵀ u. Which arrays of the forward pass do these read, for each target?",
}
FORMULA = """full = N (3 C + F) itemsize: h, context, ln2's and gelu's output
lora = N (the columns of each array that a target reads, once, + r for each target) itemsize"""


def kept_inputs(N, C, F, targets, r, itemsize):
    """N, C, F, r, itemsize whole numbers; targets: tuple of names from q_proj to down_proj -> full, lora, in bytes."""
    reads = {  # layer -> the array that it reads
        "q_proj": "h",
        "k_proj": "h",  # one and the same
        "v_proj": "h",
        "o_proj": "context",
        "up_proj": "h2",  # the second layer norm's output
        "down_proj": "gelu",
    }
    columns = {"h": C, "context": C, "h2": C, "gelu": F}
    full = sum(columns.values())  # each array has a reader whose dW is wanted
    arrays = {reads[target] for target in targets}  # a set: what two targets read is in it once
    lora = sum(columns[array] for array in arrays) + r * len(targets)  # and each adapter has a u of its own
    return N * full * itemsize, N * lora * itemsize
    # On all six it keeps more, by the six u's: LoRA saves here only if it leaves layers out. The most expensive target
    # is down_proj, whose input is the widest. k_proj costs N r numbers more: its input is kept already.


def draw(rng, size):
    """Two of the three layers that read the same array are among the targets, in each draw."""
    targets = ("q v o", "k v up down", "up k o q v")[size.number].split()
    C = 7 * size.C
    F = C + 17 * size.F  # wider
    drawn = {"N": size.N, "C": C, "F": F, "targets": tuple(f"{name}_proj" for name in targets)}
    return drawn | {"r": 8 * size.r, "itemsize": (4, 2, 8)[size.number]}


MISTAKES = {
    "full": [
        (
            "each layer has an array of its own, but q, k and v read the same h",
            lambda i: i.N * i.itemsize * (5 * i.C + i.F),
        ),
        (
            "two arrays have F columns, but only gelu's output has: up_proj reads C",
            lambda i: i.N * i.itemsize * (2 * i.C + 2 * i.F),
        ),
    ],
    "lora": [
        (
            "an array that several targets read is counted for each of them",
            lambda i: i.N * i.itemsize * sum((i.F if name == "down_proj" else i.C) + i.r for name in i.targets),
        )
    ],
}
