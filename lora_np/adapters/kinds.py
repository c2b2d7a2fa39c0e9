"""The tables of adapter kinds and of variants.

Each kind has an entry in KINDS and a file with these functions:

    shapes(n_out, n_in, r) -> dict of array shapes
    init(weight, config, rng) -> dict of initial arrays
    forward(x, weight, bias, adapter, config, wanted, mask) -> (y, cache)
    backward(dy, cache) -> (dx, dict of gradients)
    delta(weight, adapter, config) -> ΔW

Merging, compression, spectra, gradient checks and the counting of costs need only these functions, so they work for all
kinds. A variant is a kind with particular settings of AdapterConfig.
"""

from dataclasses import replace

from ..checked import one_of
from . import adalora, dora, lora, qalora, vera
from .config import AdapterConfig
from .starts import STARTS

KINDS = {"lora": lora, "dora": dora, "vera": vera, "adalora": adalora, "qalora": qalora}
VARIANTS = {
    "lora": {},
    "rslora": {"rslora": True},
    "lora+": {"rate_factors": {"lora_B": 16.0}},
    "lora-fa": {"rate_factors": {"lora_A": 0.0}},
    "dora": {"kind": "dora"},
    "pissa": {"init": "pissa"},
    "olora": {"init": "olora"},
    "loftq": {"init": "loftq"},
    "vera": {"kind": "vera"},
    "adalora": {"kind": "adalora"},
    "qalora": {"kind": "qalora"},
}


def variant_config(variant, config=None):
    """A configuration with the settings of a variant.

    Parameters
    ----------
    variant : str, a key of VARIANTS
    config : AdapterConfig with the other settings, or None for the defaults

    Returns
    -------
    AdapterConfig

    Raises
    ------
    ValueError
        If the variant is unknown.
    """
    one_of("variant", variant, VARIANTS)
    config = AdapterConfig() if config is None else config
    # Reset the settings that define variants, so that a DoRA configuration can become a LoRA configuration.
    plain = {"kind": "lora", "rslora": False, "rate_factors": {}}
    plain |= {"init": "kaiming"} if config.init in STARTS else {}
    return replace(config, **plain | VARIANTS[variant])
