"""The table of adapter kinds: a kind is one file with these functions, and one line here.

    shapes(n_out, n_in, r) -> dict of the shapes of its arrays
    init(weight, config, rng) -> dict of its arrays
    forward(x, weight, bias, adapter, config, wanted, mask) -> (y, cache)
    backward(dy, cache) -> (dx, dict of gradients)
    delta(weight, adapter, config) -> ΔW

Merging, compressing, spectra, gradient checks and costs are written once, over these, for all kinds. Variants that
are a kind with other settings are named in `variants.py`.
"""

from . import adalora, dora, lora, vera

KINDS = {"lora": lora, "dora": dora, "vera": vera, "adalora": adalora}
