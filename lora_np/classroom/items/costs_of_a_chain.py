"""Set 08, third part: a chain of layers, and how far down it the way back has to go."""

from ...adapters import AdapterConfig, lora
from ...analysis.hollow import flops_of, hollow
from ...ops import linear_backward, linear_forward
from ..item import Item

FACTORS = ("lora_A", "lora_B")


def draw_chain(rng, size):
    """Frozen layers below the lowest adapter, between two adapters, and above the highest. Widths all differ."""
    ranks = {2: [0, 2, 0, 3, 0], 3: [0, 0, 3, 1, 0, 2, 0]}[size.r]
    return {"N": size.N, "widths": [int(n) for n in rng.permutation(range(5, 6 + len(ranks)))], "ranks": ranks}


def layer_flops(N, n_out, n_in, r=0, wanted=()):
    """FLOPs of a layer's forward and of its backward pass, with LoRA of rank r where r is not 0."""
    x, W = hollow((N, n_in)), hollow((n_out, n_in))
    if not r:
        (y, cache), forward = flops_of(linear_forward, x, W, None, wanted)
        return forward, flops_of(linear_backward, y, cache)[1]
    adapter = {name: hollow(shape) for name, shape in lora.shapes(n_out, n_in, r).items()}
    (y, cache), forward = flops_of(lora.forward, x, W, None, adapter, AdapterConfig(r=r), wanted)
    return forward, flops_of(lora.backward, y, cache)[1]


def right_chain(N, widths, ranks):
    totals = [0, 0]
    for layer, (n_in, n_out, r) in enumerate(zip(widths, widths[1:], ranks)):
        wanted = ("x",) * any(ranks[:layer]) + FACTORS * (r > 0)
        for phase, flops in enumerate(layer_flops(N, n_out, n_in, r, wanted)):
            totals[phase] += flops
    return tuple(totals)


def layers_of(i):
    """(number, in, out, rank) of each layer."""
    return [(n, *sides, r) for n, (*sides, r) in enumerate(zip(i.widths, i.widths[1:], i.ranks))]


def lowest(i):
    return min(n for n, r in enumerate(i.ranks) if r)


def highest(i):
    return max(n for n, r in enumerate(i.ranks) if r)


def forward_of(i, wide=True, thin=True):
    return sum(2 * i.N * (wide * n_in * n_out + thin * r * (n_in + n_out)) for _, n_in, n_out, r in layers_of(i))


def backward_of(i, dx=lambda i, n: n > lowest(i), through=None, dW=lambda i, n: False, du=1, dA=1, dB=1):
    """The way back with other layers that hand a gradient on: `dx` says whether through W, `through` whether through
    A; and how many of the products du, dA, dB there are in each adapter."""
    total = 0
    for n, n_in, n_out, r in layers_of(i):
        total += n_in * n_out * (dx(i, n) + dW(i, n))
        total += r * (n_out * (du + dB) + n_in * (dA + (through or dx)(i, n)))
    return 2 * i.N * total


def everywhere(i, n):
    return True


def nowhere(i, n):
    return False


CHAIN = Item(
    name="chain_flops",
    arguments="N, widths, ranks",
    outputs=("forward", "backward"),
    task="The FLOPs of a step through a chain of linear layers, some of them with adapters.",
    draw=draw_chain,
    right=right_chain,
    factors=lambda i: {"2": 2.0, "N": i.N},
    mistakes={
        "forward": [
            ("the adapters' products are missing", lambda i: forward_of(i, thin=False)),
            ("the frozen products x Wᵀ are missing", lambda i: forward_of(i, wide=False)),
            (
                "only the layers that have an adapter are there: the others compute their x Wᵀ, too",
                lambda i: sum(2 * i.N * (n_in * n_out + r * (n_in + n_out)) for _, n_in, n_out, r in layers_of(i) if r),
            ),
        ],
        "backward": [
            (
                "dx is counted all the way down: below the lowest adapter nobody reads it",
                lambda i: backward_of(i, everywhere),
            ),
            (
                "dx is counted all the way down, but for the first layer's own: below the lowest adapter nobody "
                "reads it",
                lambda i: backward_of(i, lambda i, n: n > 0),
            ),
            (
                "the lowest layer that has an adapter hands a dx on, and nobody reads it",
                lambda i: backward_of(i, lambda i, n: n >= lowest(i)),
            ),
            (
                "the lowest layer that has an adapter hands dy W on, and nobody reads it",
                lambda i: backward_of(i, lambda i, n: n >= lowest(i), lambda i, n: n > lowest(i)),
            ),
            (
                "the lowest layer that has an adapter hands du A on, and nobody reads it",
                lambda i: backward_of(i, through=lambda i, n: n >= lowest(i)),
            ),
            (
                "only layers that have an adapter hand a dx on: it must pass through the frozen ones, too",
                lambda i: backward_of(i, lambda i, n: i.ranks[n] > 0 and n > lowest(i)),
            ),
            (
                "every layer that has an adapter hands a dx on, and no other: the frozen ones between them must, and "
                "the lowest one need not",
                lambda i: backward_of(i, lambda i, n: i.ranks[n] > 0),
            ),
            (
                "above the highest adapter no dx is counted: the gradient comes from there",
                lambda i: backward_of(i, lambda i, n: lowest(i) < n <= highest(i)),
            ),
            (
                "the way is cut at the wrong end: dx is needed above the lowest adapter, not below the highest",
                lambda i: backward_of(i, lambda i, n: n < highest(i)),
            ),
            (
                "the way is cut at the highest adapter: the lowest one still waits for its gradient",
                lambda i: backward_of(i, lambda i, n: n > highest(i)),
            ),
            ("no dx is counted at all", lambda i: backward_of(i, nowhere)),
            ("dx goes back through the W's alone: du A is missing", lambda i: backward_of(i, through=nowhere)),
            ("dW is counted in every layer, and all W are frozen", lambda i: backward_of(i, dW=everywhere)),
            (
                "dW is counted in the layers that have an adapter, and all W are frozen",
                lambda i: backward_of(i, dW=lambda i, n: i.ranks[n] > 0),
            ),
            (
                "dW is counted down to the lowest adapter, and all W are frozen",
                lambda i: backward_of(i, dW=lambda i, n: n >= lowest(i)),
            ),
            ("it is twice the way forward: so it is in full fine-tuning alone", lambda i: 2 * i.right["forward"]),
            ("it is as the way forward", lambda i: i.right["forward"]),
            ("dA and dB are missing", lambda i: backward_of(i, dA=0, dB=0)),
            ("a product of the sides out and r is missing in each adapter, du or dB", lambda i: backward_of(i, du=0)),
            ("dA is missing", lambda i: backward_of(i, dA=0)),
            ("du is computed twice, once for dA and once for dx", lambda i: backward_of(i, du=2)),
            ("u is computed once more: the forward pass has kept it", lambda i: backward_of(i, dA=2)),
            (
                "the lowest adapter's du is missing: dA needs it, even where no dx does",
                lambda i: i.right["backward"] - lowest_du(i),
            ),
            (
                "the lowest adapter has no gradients: it gets du from what lies above it, and dA and dB read that",
                lambda i: (
                    backward_of(i)
                    - sum(2 * i.N * (2 * r * n_out + r * n_in) for n, n_in, n_out, r in layers_of(i) if n == lowest(i))
                ),
            ),
            ("the adapters' products are missing", lambda i: backward_of(i, through=nowhere, du=0, dA=0, dB=0)),
            ("the forward pass is counted in", lambda i: i.right["backward"] + i.right["forward"]),
        ],
    },
    hints={
        "forward": "Every layer computes x Wᵀ. What do those with an adapter compute besides?",
        "backward": "Begin at the top, with the loss's gradient. Which is the last array on the way down that anybody "
        "still reads?",
    },
    formula="forward: 2 N (in out + r (in + out)) of each layer\n"
    "backward, of each layer: 2 N r (in + 2 out) for dA, dB and du;  and if an adapter lies below it,\n"
    "2 N (in out + r in) more for dx = dy W + du A",
)


def lowest_du(i):
    return sum(2 * i.N * r * n_out for n, _, n_out, r in layers_of(i) if n == lowest(i))
