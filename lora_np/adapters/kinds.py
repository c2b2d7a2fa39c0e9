"""The table of adapter kinds: a kind is one file with four functions, and one line here.

    init(weight, config, rng) -> dict of its arrays
    forward(x, weight, bias, adapter, config, wanted, mask) -> (y, cache)
    backward(dy, cache) -> (dx, dict of gradients)
    delta(weight, adapter, config) -> ΔW
"""

from . import lora

KINDS = {"lora": lora}
