"""Set 08, what it costs: parameters and FLOPs of single layers, counted from shapes; bytes are in `costs_in_memory.py`,
and a whole chain of layers is in `costs_of_a_chain.py`."""

import itertools
import math

from ...adapters import AdapterConfig, adapter_shapes, linear_layers
from ...analysis.costs import hollow_arrays
from ...model import ModelConfig, parameter_shapes
from ..item import Item
from .costs_in_memory import BYTES, KEPT
from .costs_of_a_chain import CHAIN, FACTORS, layer_flops

# ---------------------------------------------------------------- parameters


def draw_shapes(rng, size):
    """A whole model's shapes, with N blocks; the targets are not square alone, so that out and in cannot be one."""
    config = ModelConfig(size.V, size.F, size.C, size.N, size.H, size.F)
    targets = {2: ("q_proj", "up_proj"), 3: ("k_proj", "v_proj", "down_proj")}[size.r]
    return {"shapes": parameter_shapes(config), "targets": targets, "r": size.r}


def right_parameters(shapes, targets, r):
    found = adapter_shapes(hollow_arrays(shapes), AdapterConfig(r=r, targets=targets))
    return sum(math.prod(shape) for shape in found.values())


def adapted(i, leaf="weight", targets=None):
    """The shapes of the targets' weights, or of their biases."""
    return [
        i.shapes[f"{name}.{leaf}"]
        for name in linear_layers(i.shapes)
        if name.rpartition(".")[2] in (i.targets if targets is None else targets)
    ]


def rows_and_columns(i, shapes):
    return i.r * sum(sum(shape) for shape in shapes)


PARAMETERS = Item(
    name="adapter_parameters",
    arguments="shapes, targets, r",
    outputs=("trained",),
    task="How many numbers LoRA trains in a model.",
    draw=draw_shapes,
    right=right_parameters,
    factors=lambda i: {"r": i.r},
    mistakes={
        "trained": [
            ("this is one block's count: each block has adapters of its own", lambda i: i.right["trained"] / i.size.N),
            (
                "all six linear layers of a block are counted, not the targets alone",
                lambda i: rows_and_columns(i, [i.shapes[f"{name}.weight"] for name in linear_layers(i.shapes)]),
            ),
            (
                "every matrix of the model is counted, the embeddings' tables, too",
                lambda i: rows_and_columns(i, [shape for shape in i.shapes.values() if len(shape) == 2]),
            ),
            (
                "the targets' biases are taken for layers with an adapter of their own",
                lambda i: rows_and_columns(i, adapted(i) + adapted(i, "bias")),
            ),
            (
                "the targets' biases are counted, and they are frozen",
                lambda i: i.right["trained"] + sum(math.prod(shape) for shape in adapted(i, "bias")),
            ),
            ("the targets' matrices are counted, which are frozen", lambda i: sum(map(math.prod, adapted(i)))),
            (
                "the targets' matrices are counted along with their adapters, and they are frozen",
                lambda i: i.right["trained"] + sum(map(math.prod, adapted(i))),
            ),
            ("these are the B's alone", lambda i: i.r * sum(n_out for n_out, _ in adapted(i))),
            ("these are the A's alone", lambda i: i.r * sum(n_in for _, n_in in adapted(i))),
            ("both factors are counted as if they were B", lambda i: 2 * i.r * sum(n_out for n_out, _ in adapted(i))),
            ("both factors are counted as if they were A", lambda i: 2 * i.r * sum(n_in for _, n_in in adapted(i))),
            (
                "only the first of the targets is counted",
                lambda i: rows_and_columns(i, adapted(i, targets=i.targets[:1])),
            ),
            (
                "only the last of the targets is counted",
                lambda i: rows_and_columns(i, adapted(i, targets=i.targets[-1:])),
            ),
            ("r multiplies the matrices' own counts: r · in · out", lambda i: i.r * sum(map(math.prod, adapted(i)))),
        ]
    },
    hints={"trained": "Which names belong to a target, in every block? What do A and B add beside a single matrix?"},
    formula="trained = Σ r (out + in), over the weights of all layers whose own name is among the targets",
)

# ---------------------------------------------------------------- one layer's FLOPs

HALF = "it is half: a product is one multiplication and one addition for each of n · k · m"
A_ROW = "this is for one row: each product runs over all N of them"
FIRST = "of the k additions of a sum the first is left out: we count k multiplications and k additions"
SQUARE = "it would be right for a square W: one side stands in for both"
SUMS = "a sum of whole arrays, such as a bias, is counted: we count the products of matrices alone"


def draw_flops(rng, size):
    return {"N": size.N, "n_in": 4 * size.n_in, "n_out": 4 * size.n_out, "r": size.r}


def right_flops(N, n_in, n_out, r):
    return (*layer_flops(N, n_out, n_in, wanted=("x", "weight")), *layer_flops(N, n_out, n_in, r, ("x", *FACTORS)))


def wide(i):
    """A product with W's sides."""
    return 2 * i.N * i.n_out * i.n_in


def with_in(i):
    """A thin product, of the sides in and r: u = x Aᵀ, du A, or dA."""
    return 2 * i.N * i.n_in * i.r


def with_out(i):
    """A thin product, of the sides out and r: s u Bᵀ, du, or dB."""
    return 2 * i.N * i.n_out * i.r


def forming(i):
    """B A."""
    return 2 * i.n_out * i.r * i.n_in


def less_first_additions(products):
    """Without the first addition of each sum, which adds to nothing: of (n, k)(k, m), n m are left out."""
    return sum(2 * n * k * m - n * m for n, k, m in products)


FLOPS = Item(
    name="layer_flops",
    arguments="N, n_in, n_out, r",
    outputs=("full_forward", "full_backward", "lora_forward", "lora_backward"),
    task="The FLOPs of one linear layer's step, in full and with LoRA.",
    draw=draw_flops,
    right=right_flops,
    factors=lambda i: {"N": i.N, "r": i.r},
    mistakes={
        "full_forward": [
            (HALF, lambda i: wide(i) / 2),
            (A_ROW, lambda i: wide(i) / i.N),
            (FIRST, lambda i: less_first_additions([(i.N, i.n_in, i.n_out)])),
            (SUMS, lambda i: wide(i) + i.N * i.n_out),
            (SQUARE, lambda i: 2 * i.N * i.n_in**2),
            (SQUARE, lambda i: 2 * i.N * i.n_out**2),
        ],
        "full_backward": [
            ("it is half: is one of the two products missing, dx or dW? Or all additions?", wide),
            ("it is a quarter: one product is missing, and of the other one the additions", lambda i: wide(i) / 2),
            (A_ROW, lambda i: 2 * wide(i) / i.N),
            ("dW is counted for one row: it is a product over all N", lambda i: wide(i) + wide(i) / i.N),
            ("the forward pass is counted in", lambda i: 3 * wide(i)),
            (FIRST, lambda i: less_first_additions([(i.N, i.n_out, i.n_in), (i.n_out, i.N, i.n_in)])),
            (SUMS, lambda i: 2 * wide(i) + i.N * i.n_out),
        ],
        "lora_forward": [
            (HALF, lambda i: i.right["lora_forward"] / 2),
            (A_ROW, lambda i: i.right["lora_forward"] / i.N),
            ("x Wᵀ is missing: a frozen layer still computes it", lambda i: with_in(i) + with_out(i)),
            ("the adapter's two products are missing", wide),
            ("the second thin product is missing, s u Bᵀ", lambda i: wide(i) + with_in(i)),
            ("the first thin product is missing, u = x Aᵀ", lambda i: wide(i) + with_out(i)),
            ("B A is formed and added to W: in training x passes through r numbers", lambda i: wide(i) + forming(i)),
            (
                "B A is formed, and x goes through it: in training x passes through r numbers",
                lambda i: 2 * wide(i) + forming(i),
            ),
            (FIRST, lambda i: less_first_additions([(i.N, i.n_in, i.n_out), (i.N, i.n_in, i.r), (i.N, i.r, i.n_out)])),
            (SUMS, lambda i: i.right["lora_forward"] + i.N * i.n_out),
            (SUMS, lambda i: i.right["lora_forward"] + 2 * i.N * i.n_out),
            (SQUARE, lambda i: wide(i) + 2 * with_in(i)),
            (SQUARE, lambda i: wide(i) + 2 * with_out(i)),
        ],
        "lora_backward": [
            (HALF, lambda i: i.right["lora_backward"] / 2),
            (A_ROW, lambda i: i.right["lora_backward"] / i.N),
            (
                "dW is counted, and W is frozen: here the way back does not cost twice the way forward",
                lambda i: i.right["lora_backward"] + wide(i),
            ),
            ("dy W is missing: what lies below still needs dx", lambda i: i.right["lora_backward"] - wide(i)),
            ("only dy W is there: the adapter's four products are missing", wide),
            (
                "two of the four thin products are missing, du and du A, or dA and dB",
                lambda i: wide(i) + with_in(i) + with_out(i),
            ),
            (
                "a thin product of the sides in and r is missing, dA or du A",
                lambda i: i.right["lora_backward"] - with_in(i),
            ),
            (
                "a thin product of the sides out and r is missing, dB or du = s dy B",
                lambda i: i.right["lora_backward"] - with_out(i),
            ),
            (
                "u = x Aᵀ is computed once more: the forward pass has kept it",
                lambda i: i.right["lora_backward"] + with_in(i),
            ),
            ("du is computed twice, once for dA and once for dx", lambda i: i.right["lora_backward"] + with_out(i)),
            ("the forward pass is counted in", lambda i: i.right["lora_backward"] + i.right["lora_forward"]),
            (SQUARE, lambda i: wide(i) + 4 * with_in(i)),
            (SQUARE, lambda i: wide(i) + 4 * with_out(i)),
            (
                FIRST,
                lambda i: less_first_additions(
                    [
                        (i.N, i.n_out, i.n_in),
                        (i.N, i.n_out, i.r),
                        (i.N, i.r, i.n_in),  # dy W, du, du A
                        (i.r, i.N, i.n_in),
                        (i.n_out, i.N, i.r),  # dA, dB
                    ]
                ),
            ),
        ],
    },
    hints={
        "full_forward": "(N, in) times (in, out): how many results, and how many operations in each of them?",
        "full_backward": "Which two gradients are products of matrices? Write down their shapes, and count as before.",
        "lora_forward": "x Wᵀ is still there. Which two thin products stand beside it?",
        "lora_backward": "dx goes back through W and through A. Which products lead to dA, dB, dx? Which serves two?",
    },
    formula="full: forward 2 N in out, backward 4 N in out\n"
    "LoRA: forward 2 N in out + 2 N r (in + out), backward 2 N in out + 4 N r (in + out)",
)

# ---------------------------------------------------------------- when merging has paid off


def draw_merging(rng, size):
    """In the first draw both have cost the same after a whole number of rows, in the second after none."""
    n_in, n_out = {2: (21, 42), 3: (60, 25)}[size.r]
    return {"n_in": n_in, "n_out": n_out, "r": size.r}


def right_merging(n_in, n_out, r):
    def attached(N):
        return layer_flops(N, n_out, n_in, r)[0]

    def merged(N):
        in_place = layer_flops(n_out, n_in, r)[0]  # B A: a layer's product, of B's rows and Aᵀ as the weight
        return in_place + layer_flops(N, n_out, n_in)[0]

    return next(N for N in itertools.count(1) if merged(N) < attached(N))


def equal_at(i):
    return i.n_in * i.n_out / (i.n_in + i.n_out)


def whole_above(number):
    return math.floor(number) + 1


def not_whole(number):
    return number if number % 1 else math.nan


TOO_FEW = "after so many rows merging has not cost less yet"
ELEMENTWISE = "adding s B A to W is counted: we count the products of matrices alone"

MERGING = Item(
    name="merging_pays_from",
    arguments="n_in, n_out, r",
    outputs=("rows",),
    task="From how many rows on merging has cost less than staying attached.",
    draw=draw_merging,
    right=right_merging,
    mistakes={
        "rows": [
            (TOO_FEW, lambda i: math.floor(equal_at(i))),
            (TOO_FEW, lambda i: not_whole(equal_at(i))),
            ("one row fewer is enough", lambda i: i.right["rows"] + 1),
            ("it is no whole number: rows come one by one", lambda i: not_whole(equal_at(i) + 1)),
            ("it grows with r: what a row costs attached grows with r, too", lambda i: whole_above(i.r * equal_at(i))),
            ("it falls with r: what merging costs grows with r, too", lambda i: whole_above(equal_at(i) / i.r)),
            ("attached, a row is taken to cost u = x Aᵀ alone", lambda i: i.n_out + 1),
            ("attached, a row is taken to cost s u Bᵀ alone", lambda i: i.n_in + 1),
            ("additions are counted on one side alone", lambda i: whole_above(2 * equal_at(i))),
            ("additions are counted on one side alone", lambda i: whole_above(equal_at(i) / 2)),
            (ELEMENTWISE, lambda i: whole_above((2 * i.r + 1) / (2 * i.r) * equal_at(i))),
            (ELEMENTWISE, lambda i: whole_above((2 * i.r + 2) / (2 * i.r) * equal_at(i))),
            ("half of a side: that is for a square W alone", lambda i: min(i.n_in, i.n_out) // 2 + 1),
            ("half of a side: that is for a square W alone", lambda i: max(i.n_in, i.n_out) // 2 + 1),
            (
                "this is where a training step costs as much as in full, a third of it",
                lambda i: whole_above(equal_at(i) / 3),
            ),
        ]
    },
    hints={"rows": "What does B A cost, once? And what does each row cost more, as long as the adapter stays apart?"},
    formula="merging: 2 r in out, once; attached: 2 r (in + out) more for each row\n"
    "rows = the smallest whole number above in · out / (in + out): r cancels",
)

ITEMS = (PARAMETERS, FLOPS, MERGING, BYTES, KEPT, CHAIN)
