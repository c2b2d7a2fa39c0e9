"""The table of adapter kinds: a kind is one file with five functions, and one line here.

    shapes(n_out, n_in, r) -> dict of the shapes of its arrays
    init(weight, config, rng) -> dict of its arrays
    forward(x, weight, bias, adapter, config, wanted, mask) -> (y, cache)
    backward(dy, cache) -> (dx, dict of gradients)
    delta(weight, adapter, config) -> ΔW

For its FLOPs and bytes to be counted before it is made, it has a line more in KIND_FLOPS and KIND_CACHES of
`analysis/`.
"""

from . import lora

KINDS = {"lora": lora}
