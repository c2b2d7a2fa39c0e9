"""Set 08, second part: the bytes that a training step holds, of parameters and what belongs to them, and of a block's
activations."""

import numpy as np

from ...adapters import AdapterConfig
from ...analysis import step_bytes, tensor_bytes
from ...model import ModelConfig
from ...training import initial_state
from ..item import Item

DTYPES = {1: "int8", 2: "float16", 4: "float32"}  # itemsize -> a dtype that has it

# ---------------------------------------------------------------- parameters, gradients, moments


def draw_bytes(rng, size):
    """A base much larger than what is trained, as in practice, and in fewer bytes a number or in as many."""
    base_itemsize, itemsize = {2: (1, 4), 3: (2, 2)}[size.r]
    numbers = {"n_base": 1000 * size.V + size.F, "n_adapter": 10 * size.F + size.T}
    return {**numbers, "base_itemsize": base_itemsize, "itemsize": itemsize}


def right_bytes(n_base, n_adapter, base_itemsize, itemsize):
    base = {"base": np.broadcast_to(np.zeros((), DTYPES[base_itemsize]), n_base)}
    adapter = {"adapter": np.zeros(n_adapter, DTYPES[itemsize])}
    state = initial_state(adapter)
    moments = tensor_bytes(state.m) + tensor_bytes(state.v)
    return tensor_bytes(base | adapter), tensor_bytes(adapter), moments


NUMBERS = "these are numbers, not bytes"
BASE_TOO = "the base is counted in, and it is frozen"
THE_BASES = "a number of the adapter is taken to have the base's bytes"

BYTES = Item(
    name="training_bytes",
    arguments="n_base, n_adapter, base_itemsize, itemsize",
    outputs=("parameters", "gradients", "moments"),
    task="What a step of LoRA holds, activations aside.",
    draw=draw_bytes,
    right=right_bytes,
    factors=lambda i: {"8 (bits for bytes)": 8.0},
    mistakes={
        "parameters": [
            ("the adapter's own numbers are missing", lambda i: i.n_base * i.base_itemsize),
            ("the base is missing: it is frozen, and held all the same", lambda i: i.n_adapter * i.itemsize),
            (NUMBERS, lambda i: i.n_base + i.n_adapter),
            (
                "a number of the base is taken to have the adapter's bytes",
                lambda i: (i.n_base + i.n_adapter) * i.itemsize,
            ),
            (THE_BASES, lambda i: (i.n_base + i.n_adapter) * i.base_itemsize),
            ("the two itemsizes are exchanged", lambda i: i.n_base * i.itemsize + i.n_adapter * i.base_itemsize),
        ],
        "gradients": [
            (NUMBERS, lambda i: i.n_adapter),
            (BASE_TOO, lambda i: i.n_base * i.base_itemsize + i.n_adapter * i.itemsize),
            (BASE_TOO, lambda i: (i.n_base + i.n_adapter) * i.itemsize),
            ("these are the base's, which is frozen", lambda i: i.n_base * i.base_itemsize),
            ("these are the base's, which is frozen", lambda i: i.n_base * i.itemsize),
            (THE_BASES, lambda i: i.n_adapter * i.base_itemsize),
            (
                "there are so many moments: a gradient is one number for each that is trained",
                lambda i: 2 * i.n_adapter * i.itemsize,
            ),
        ],
        "moments": [
            (NUMBERS, lambda i: 2 * i.n_adapter),
            (BASE_TOO, lambda i: 2 * (i.n_base * i.base_itemsize + i.n_adapter * i.itemsize)),
            (BASE_TOO, lambda i: 2 * (i.n_base + i.n_adapter) * i.itemsize),
            (THE_BASES, lambda i: 2 * i.n_adapter * i.base_itemsize),
            ("this is one moment, and AdamW keeps two", lambda i: i.n_adapter * i.itemsize),
            ("the gradients are counted in", lambda i: 3 * i.n_adapter * i.itemsize),
            ("the gradients and the adapter itself are counted in", lambda i: 4 * i.n_adapter * i.itemsize),
        ],
    },
    hints={
        "parameters": "What must be there for the forward pass, and in how many bytes each?",
        "gradients": "Which numbers does the optimiser move?",
        "moments": "AdamW keeps two running means. Of what, and for which numbers?",
    },
    formula="parameters = n_base · base_itemsize + n_adapter · itemsize\n"
    "gradients = n_adapter · itemsize,  moments = 2 · n_adapter · itemsize",
)

# ---------------------------------------------------------------- what a block keeps for its weights

# What each of a block's linear layers reads: one array for three of them.
READS = {
    "q_proj": "ln1",
    "k_proj": "ln1",
    "v_proj": "ln1",
    "o_proj": "attn.context",
    "up_proj": "ln2",
    "down_proj": "mlp.gelu",
}


def draw_kept(rng, size):
    """Two of the three layers that read the same array are among the targets, in each draw."""
    targets, itemsize = {2: (("q_proj", "v_proj"), 4), 3: (("k_proj", "v_proj", "o_proj", "down_proj"), 2)}[size.r]
    return {"N": size.N, "C": size.C, "F": size.F, "targets": targets, "r": size.r, "itemsize": itemsize}


def right_kept(N, C, F, targets, r, itemsize):
    """Out of all that a step of a model of three blocks holds, what block 1 holds for its linear layers."""
    model = ModelConfig(1, N, C, 3, 1, F)
    found = []
    for adapter in (None, AdapterConfig(r=r, targets=targets)):
        held = step_bytes(model, 1, N, adapter, dtype=DTYPES[itemsize]).activations
        inputs = [f"blocks.1.{name}" for name in dict.fromkeys(READS.values())]
        found.append(sum(size for name, size in held.items() if name in inputs or is_thin(name)))
    return tuple(found)


def is_thin(name):
    return name.startswith("blocks.1.") and name.endswith(".update.w")


def widths(i):
    return {"ln1": i.C, "attn.context": i.C, "ln2": i.C, "mlp.gelu": i.F}


def bytes_of(i, columns):
    return i.N * columns * i.itemsize


def inputs_of(i, targets):
    """Columns of what these layers read, each array once."""
    return sum(widths(i)[name] for name in {READS[target] for target in targets})


def each_its_own(i, targets):
    return sum(widths(i)[READS[target]] for target in targets)


def outputs_of(i, targets):
    return sum(i.F if target == "up_proj" else i.C for target in targets)


def thin(i):
    return i.r * len(i.targets)


def with_thin(columns):
    """A wrong number of columns beside the right number of thin ones."""
    return lambda i: bytes_of(i, columns(i) + thin(i))


KEPT = Item(
    name="kept_inputs",
    arguments="N, C, F, targets, r, itemsize",
    outputs=("full", "lora"),
    task="Bytes that a block keeps for the gradients of its linear layers' weights.",
    draw=draw_kept,
    right=right_kept,
    factors=lambda i: {"itemsize": i.itemsize, "N": i.N, "2": 2.0},
    mistakes={
        "full": [
            (
                "each layer has an array of its own here, and q, k and v read one and the same h",
                lambda i: bytes_of(i, each_its_own(i, READS)),
            ),
            ("only three of the four arrays are there: down_proj's input is missing", lambda i: bytes_of(i, 3 * i.C)),
            ("only three of the four arrays are there", lambda i: bytes_of(i, 2 * i.C + i.F)),
            ("all four arrays have C columns here, and gelu's output is wider", lambda i: bytes_of(i, 4 * i.C)),
            (
                "two arrays have F columns here: up_proj's input is not its output",
                lambda i: bytes_of(i, 2 * i.C + 2 * i.F),
            ),
            ("the weights are counted in; they are parameters", lambda i: i.right["full"] + weights(i) * i.itemsize),
            (
                "these are the weights' bytes: what is kept for the way back belongs to the rows",
                lambda i: weights(i) * i.itemsize,
            ),
        ],
        "lora": [
            ("the thin u of each adapter is missing: dB reads it", lambda i: bytes_of(i, inputs_of(i, i.targets))),
            ("only the thin u's are there: dA = duᵀ x reads the layer's whole input", lambda i: bytes_of(i, thin(i))),
            ("there is one u here, and each adapter has its own", lambda i: bytes_of(i, inputs_of(i, i.targets) + i.r)),
            (
                "there is a u for each of the six layers: only a target has one",
                lambda i: bytes_of(i, inputs_of(i, i.targets) + 6 * i.r),
            ),
            (
                "two thin arrays are kept for each adapter: du belongs to the way back",
                lambda i: bytes_of(i, inputs_of(i, i.targets) + 2 * thin(i)),
            ),
            ("targets that read the same array have one each here", with_thin(lambda i: each_its_own(i, i.targets))),
            (
                "the inputs of all six layers are kept: a frozen layer without an adapter needs no dW",
                with_thin(lambda i: inputs_of(i, READS)),
            ),
            (
                "the inputs of the other layers are kept, and not those of the targets",
                with_thin(lambda i: inputs_of(i, READS) - inputs_of(i, i.targets)),
            ),
            ("the targets' outputs stand where their inputs belong", with_thin(lambda i: outputs_of(i, i.targets))),
            (
                "all inputs have C columns here, and gelu's output is wider",
                with_thin(lambda i: i.C * len({READS[target] for target in i.targets})),
            ),
            ("A and B are counted in; they are parameters", lambda i: i.right["lora"] + factors_of(i) * i.itemsize),
            ("this is full fine-tuning's", lambda i: i.right["full"]),
        ],
    },
    hints={
        "full": "Which four arrays do the six layers read? How many columns has each?",
        "lora": "dA = duᵀ x and dB = s dyᵀ u. Which arrays of the forward pass do these read, for each target?",
    },
    formula="full = N (3 C + F) itemsize: h, context, ln2's and gelu's output\n"
    "lora = N (the columns of each array that a target reads, once, + r for each target) itemsize",
)


def weights(i):
    return 4 * i.C**2 + 2 * i.C * i.F


def factors_of(i):
    return sum(i.r * (i.C + (i.C if target[0] in "qkvo" else i.F)) for target in i.targets)
