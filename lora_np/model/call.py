"""What stays the same through one forward pass and its backward pass: the arguments, checked, and what is wanted."""

from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, fitting_parts
from .config import ModelConfig
from .rows import RowGroup, row_groups

# Where a module stands in its block; q, k and v stand side by side.
DEPTH_IN_BLOCK = {
    "ln1": 0,
    "attn.q_proj": 1,
    "attn.k_proj": 1,
    "attn.v_proj": 1,
    "attn.o_proj": 2,
    "ln2": 3,
    "mlp.up_proj": 4,
    "mlp.down_proj": 5,
}


class Call(NamedTuple):
    """All of one forward pass that stays the same from layer to layer."""

    params: dict  # base weights, with whole weights of the adapter in their place
    config: ModelConfig
    adapter_config: object  # AdapterConfig or None
    adapter_parts: dict  # layer -> its adapter's arrays
    masks: dict  # name -> dropout mask, empty in evaluation
    wanted: dict  # module -> its own parameters whose gradients will be asked for ("weight", "lora_A", …)
    lowest: float  # the depth of the lowest module with a wanted parameter: below it no gradient is needed
    read: np.ndarray | None  # (B,), the position of each row that a classifier reads; None: a language model
    groups: tuple[RowGroup, ...] = ()  # empty where all rows have the same adapter, or none has one

    def operands_wanted(self, module, place=None):
        """The operands of a module's operation whose gradients are needed: x, and its own parameters.

        x's gradient is needed just where something lower down is trained. This one line is where
        the backward pass stops early, and where the cache stops growing. `place` is where the module
        stands, if that is not where its name says: the token embedding serves as the head once more.
        """
        if not self.wanted:  # nothing is trained
            return ()
        x = ("x",) if self.lowest < depth(place or module, self.config) else ()
        return self.wanted.get(module, ()) + x

    def reads_one(self, i):
        """Whether block i is the last of a classifier; see `positions_read`."""
        return self.read is not None and i == self.config.n_layers - 1


def depth(module, config):
    """How far from the input a module stands; each module reads only from lower ones."""
    if module in ("tok_emb", "pos_emb"):
        return 0
    if module.startswith("blocks."):
        _, i, rest = module.split(".", 2)
        return 1 + 6 * int(i) + DEPTH_IN_BLOCK[rest]
    return 1 + 6 * config.n_layers + (module == "head")  # ln_f, then head


def check_ids(ids, config):
    """Raise unless ids is an int array (B, T) with T from 1 to config.n_positions."""
    if not (isinstance(ids, np.ndarray) and np.issubdtype(ids.dtype, np.integer)):
        raise TypeError(f"ids: got {getattr(ids, 'dtype', type(ids).__name__)}, expected an array of integers")
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(f"ids: got shape {ids.shape}, expected (B, T) with T at least 1")
    if ids.shape[1] > config.n_positions:
        raise ValueError(
            f"ids: a sequence of {ids.shape[1]} tokens is longer than the position table "
            f"(expected at most n_positions = {config.n_positions})"
        )


def begin(params, ids, config, lengths, adapter, wanted, masks):
    """Check the arguments of a forward pass and gather what its layers share."""
    check_ids(ids, config)
    if lengths is not None and lengths.shape != ids.shape[:1]:
        raise ValueError(f"lengths: got shape {lengths.shape}, expected ({len(ids)},), one for each row")
    if lengths is not None and not ((lengths >= 1) & (lengths <= ids.shape[1])).all():
        raise ValueError(f"lengths: got {lengths}, expected 1 to T = {ids.shape[1]}")
    groups = ()
    if adapter is not None and not isinstance(adapter, Adapter):
        groups, adapter = row_groups(params, adapter, len(ids)), None
        if wanted or masks:
            raise ValueError("adapter: rows with adapters of their own are for evaluation, without wanted or masks")
    weights = adapter.weights if adapter is not None else {}
    known = {**params, **weights}
    parts = fitting_parts(params, adapter) if adapter is not None else {}
    if config.n_classes:
        for held in [group.params for group in groups] or [known]:
            check_head(held, config)
    for name in wanted:
        if name not in known:
            raise ValueError(f"wanted: no parameter is named {name!r}")
    own = {}
    for name in wanted:
        module, _, leaf = name.rpartition(".")
        own[module] = own.get(module, ()) + (leaf,)
    return Call(
        params=known,
        config=config,
        adapter_config=adapter.config if adapter is not None else None,
        adapter_parts=parts,
        masks=masks or {},
        wanted=own,
        lowest=min((depth(module, config) for module in own), default=float("inf")),
        read=read_positions(ids, lengths) if config.n_classes else None,
        groups=groups,
    )


def check_head(params, config):
    """Raise ValueError unless there is a classifier's head of the right shape."""
    if "head.weight" not in params:
        raise ValueError(f"params: head.weight is missing, and n_classes is {config.n_classes}")
    got, expected = params["head.weight"].shape, (config.n_classes, config.d_model)
    if got != expected:
        raise ValueError(f"params: head.weight has shape {got}, expected (n_classes, d_model) = {expected}")


def read_positions(ids, lengths):
    """(B,) the last real token of each row."""
    B, T = ids.shape
    return np.full(B, T - 1) if lengths is None else lengths - 1
