"""The variants of LoRA by name, each defined by settings of AdapterConfig.

Variants with their own forward pass are kinds (`kinds.py`). The others are LoRA with different settings.
"""

from dataclasses import replace

from ..checked import one_of
from .config import AdapterConfig
from .starts import STARTS

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
