"""The ways of training that the main job compares."""

import json
from pathlib import Path
from typing import NamedTuple

from ..adapters import AdapterConfig, init_adapter
from ..model import add_head, initial_params
from ..training import stream

SETTINGS = Path(__file__).parent / "settings.json"  # written by `python -m lora_np tune`


class Method(NamedTuple):
    """One row of the table."""

    key: str
    label: str
    adapter: AdapterConfig | None  # None: the whole model is trained
    from_base: bool = True  # False: from random weights


QV = ("q_proj", "v_proj")


def lora(r, *targets):
    """LoRA as in the comparison: α = 2r, so that s = 2 at every rank."""
    return AdapterConfig(r=r, alpha=2.0 * r, targets=targets)


METHODS = [
    Method("head", "head only", AdapterConfig(targets=())),
    *(Method(f"lora_qv_r{r}", f"LoRA q,v r={r}", lora(r, *QV)) for r in (1, 2, 4, 8, 16)),
    # Under 1 % of the parameters; without q and k it buys rank 4 and not 3.
    Method("lora_vomlp_r4", "LoRA v,o,up,down r=4", lora(4, "v_proj", "o_proj", "up_proj", "down_proj")),
    *(Method(f"lora_all_r{r}", f"LoRA all linear r={r}", lora(r, "all-linear")) for r in (1, 8)),
    Method("full", "full fine-tuning", None),
    Method("scratch", "full, from random weights", None, from_base=False),
]
BY_KEY = {method.key: method for method in METHODS}


def starting_point(method, params, config, n_classes, seed):
    """The model, and the adapter that the method trains, at step 0.

    The head is the same for every method at the same seed, and so are the base weights; only what is
    allowed to move differs.

    Parameters
    ----------
    method : Method
    params, config : the pretrained language model
    n_classes : int
    seed : int

    Returns
    -------
    params : dict of the classifier's weights
    config : its ModelConfig
    adapter : Adapter to train; None: the whole model is trained
    """
    if not method.from_base:
        params = initial_params(config, stream(seed, "weights"))
    params, config = add_head(params, config, n_classes, stream(seed, "head"))
    if method.adapter is None:
        return params, config, None
    return params, config, init_adapter(params, method.adapter, stream(seed, "adapter"))


def chosen_settings(key):
    """What the validation split chose for a method: {"learning_rate": the peak, "dropout": the model's}."""
    return json.loads(SETTINGS.read_text(encoding="utf-8"))["chosen"][key]
