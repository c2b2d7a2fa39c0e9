"""The description of one layer, an entry in an architecture's list."""

from typing import NamedTuple


class Module(NamedTuple):
    """One layer of a model."""

    name: str  # "blocks.0.attn.q_proj"; its output is recorded under this name
    operation: str  # a key of `layers.OPERATIONS`
    shape: tuple = ()  # of its weight; () for a layer without parameters
    std: float | None = None  # standard deviation of its initial weight; None: the weight starts as ones
    bias: bool = True  # whether it has a bias, if it has a weight
    one_position: bool = False  # whether it is computed only at the position in each row that a classifier reads
    tied_to: str | None = None  # name of the module whose weight it uses
    width: int = 0  # size of the last axis of its dropout mask; 0: no dropout here
    depth: int = 0  # distance from the input: a layer reads only outputs of layers with a smaller depth

    @property
    def parameters(self):
        """The name that its parameters' names begin with."""
        return self.tied_to or self.name

    @property
    def prefix(self):
        """Its name up to the last dot: "blocks.0.attn." for "blocks.0.attn.context"."""
        return self.name[: self.name.rfind(".") + 1]

    @property
    def mask_name(self):
        """The name of its dropout mask: "embed", or the branch of a residual, such as "blocks.0.attn"."""
        return self.name.removesuffix(".residual")

    def parameter_shapes(self):
        """Name -> shape of its own parameters, the weight before the bias."""
        if not self.shape or self.tied_to:
            return {}
        bias = {f"{self.name}.bias": self.shape[:1]} if self.bias else {}
        return {f"{self.name}.weight": self.shape, **bias}


def with_depths(modules):
    """Name -> Module with its depth. Consecutive layers of one operation, such as q, k and v, share a depth."""
    by_name, depth, previous = {}, -1, None
    for module in modules:
        depth += module.operation != previous
        by_name[module.name] = module._replace(depth=depth)
        previous = module.operation
    return by_name
