"""The table of adapter kinds: a kind is one file with four functions, and one line here.

    init(weight, config, rng) -> dict of its arrays
    forward(x, weight, bias, adapter, config, wanted, mask) -> (y, cache)
    backward(dy, cache) -> (dx, dict of gradients)
    delta(weight, adapter, config) -> ΔW

For its FLOPs and bytes to be counted before it is made, it has a line more in KIND_SHAPES, KIND_FLOPS and
KIND_CACHES of `analysis/`.
"""

from . import lora

KINDS = {"lora": lora}
