"""The variants of LoRA by name, each as the settings of an AdapterConfig that make it.

A variant that needs a forward pass of its own is a kind (`kinds.py`); the others are LoRA with other settings.
"""

from dataclasses import replace

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
}


def variant_config(variant, config=None):
    """A configuration turned into a variant's.

    Parameters
    ----------
    variant : str, a key of VARIANTS
    config : AdapterConfig whose other settings stay; None: the default

    Returns
    -------
    AdapterConfig
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: got {variant!r}, expected one of {', '.join(VARIANTS)}")
    config = AdapterConfig() if config is None else config
    # What makes another variant does not stay: DoRA's settings turned into LoRA's are of LoRA.
    plain = {"kind": "lora", "rslora": False, "rate_factors": {}}
    plain |= {"init": "kaiming"} if config.init in STARTS else {}
    return replace(config, **plain | VARIANTS[variant])
