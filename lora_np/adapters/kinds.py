"""The table of adapter kinds. Each kind has one line here and one file with these functions:

    shapes(n_out, n_in, r) -> dict of the shapes of its arrays
    init(weight, config, rng) -> dict of its arrays
    forward(x, weight, bias, adapter, config, wanted, mask) -> (y, cache)
    backward(dy, cache) -> (dx, dict of gradients)
    delta(weight, adapter, config) -> ΔW

Merging, compressing, spectra, gradient checks and costs use only these functions, so they work for all kinds.
`variants.py` defines variants, which are kinds with different settings.
"""

from . import adalora, dora, lora, qalora, vera

KINDS = {"lora": lora, "dora": dora, "vera": vera, "adalora": adalora, "qalora": qalora}
