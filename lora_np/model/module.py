"""One layer of a model, as an architecture's list describes it."""

from typing import NamedTuple


class Module(NamedTuple):
    """What everything outside of the passes needs to know of a layer."""

    name: str  # "blocks.0.attn.q_proj"; its output is recorded under this name
    operation: str  # a key of `layers.OPERATIONS`
    shape: tuple = ()  # of its weight; () for a layer without parameters
    std: float | None = None  # standard deviation of its initial weight; None: ones
    bias: bool = True  # whether there is one beside the weight
    one_position: bool = False  # computed at the one position of each row that a classifier reads
    tied_to: str | None = None  # the module whose weight it uses
    width: int = 0  # last axis of the branch that a dropout mask acts on; 0: no dropout here
    depth: int = 0  # how far from the input: a layer reads only from lower ones

    @property
    def parameters(self):
        """The name that its parameters begin with."""
        return self.tied_to or self.name

    @property
    def prefix(self):
        """What the names of its block begin with: "blocks.0.attn." for "blocks.0.attn.context"."""
        return self.name[: self.name.rfind(".") + 1]

    @property
    def mask_name(self):
        """The name of its dropout mask: "embed", or that of a residual's branch, "blocks.0.attn"."""
        return self.name.removesuffix(".residual")

    def parameter_shapes(self):
        """Name -> shape of its own parameters, a weight before its bias."""
        if not self.shape or self.tied_to:
            return {}
        bias = {f"{self.name}.bias": self.shape[:1]} if self.bias else {}
        return {f"{self.name}.weight": self.shape, **bias}


def with_depths(modules):
    """Name -> Module with its depth. Layers of one operation in a row read the same input, as q, k and v do."""
    by_name, depth, previous = {}, -1, None
    for module in modules:
        depth += module.operation != previous
        by_name[module.name] = module._replace(depth=depth)
        previous = module.operation
    return by_name
