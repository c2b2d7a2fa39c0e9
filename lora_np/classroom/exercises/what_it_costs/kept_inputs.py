"""5. Stored activations (4 points).

For the backward pass, a linear layer stores what the gradients of its **weights** need: its input for `dW = dyᵀ x`; its
input and `u` (N, r) for `dA = duᵀ x` and `dB = s dyᵀ u`. A frozen layer without an adapter stores nothing. (`dy` and
`du` are computed in the backward pass; weights count as parameters, not as activations.) An array that several layers
need is stored only once.

Count the bytes that the six linear layers of a block in the middle of a model store, in two cases: all six `W` are
trained (`full`), or only adapters of rank `r` on the layers in `targets` (`lora`). Each number takes `itemsize` bytes.
Look up in lesson 05 which array each of the six layers takes as input, and note the array's width: C columns or F?

**Predict:** does LoRA on all six layers store more or less than full fine-tuning here? Which single target costs the
most memory? What does `k_proj` add if `q_proj` and `v_proj` are already targets?
"""

HINTS = {
    "full": "Which four arrays do the six layers read? How many columns does each have?",
    "lora": "dA = duᵀ x and dB = s dyᵀ u. Which arrays of the forward pass do these need, for each target?",
}
FORMULA = """full = N (3 C + F) itemsize: h, context, and the outputs of ln2 and gelu
lora = N (columns of all distinct arrays that targets read + r for each target) itemsize"""


def kept_inputs(N, C, F, targets, r, itemsize):
    """N, C, F, r, itemsize ints; targets: tuple of names from q_proj to down_proj -> full, lora, in bytes."""
    reads = {  # layer -> the array that it reads
        "q_proj": "h",
        "k_proj": "h",  # the same array
        "v_proj": "h",
        "o_proj": "context",
        "up_proj": "h2",  # the second layer norm's output
        "down_proj": "gelu",
    }
    columns = {"h": C, "context": C, "h2": C, "gelu": F}
    full = sum(columns.values())  # each array is needed for some dW
    arrays = {reads[target] for target in targets}  # a set: an array that two targets read is counted once
    lora = sum(columns[array] for array in arrays) + r * len(targets)  # each adapter has its own u
    return N * full * itemsize, N * lora * itemsize
    # With adapters on all six layers, LoRA stores more than full fine-tuning, because it also stores the six u's. LoRA
    # stores fewer activations only if some layers have no adapter. The most expensive target is down_proj, whose input
    # is the widest. k_proj adds only N r numbers, because its input is already stored.


def draw(rng, size):
    """In each draw, the targets include at least two of q_proj, k_proj and v_proj, which read the same array."""
    targets = ("q v o", "k v up down", "up k o q v")[size.number].split()
    C = 7 * size.C
    F = C + 17 * size.F  # wider
    drawn = {"N": size.N, "C": C, "F": F, "targets": tuple(f"{name}_proj" for name in targets)}
    return drawn | {"r": 8 * size.r, "itemsize": (4, 2, 8)[size.number]}


MISTAKES = {
    "each layer stores its own array, but q, k and v read the same h": lambda i: i.N * i.itemsize * (5 * i.C + i.F),
    "up_proj's input is counted with F columns, but only gelu's output has F": ('"h2": C', '"h2": F'),
    "an array that several targets read is counted once for each of them": lambda i: (
        i.N * i.itemsize * sum((i.F if name == "down_proj" else i.C) + i.r for name in i.targets)
    ),
}
