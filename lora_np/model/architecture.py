"""The description of an architecture: a record for the whole model, and a specification for each layer."""

from collections.abc import Callable
from typing import NamedTuple

from ..checked import check_fields, finite_number, instance_of, whole_number


class LayerSpec(NamedTuple):
    """One layer of a model."""

    name: str  # "blocks.0.attn.q_proj"; its output is recorded under this name
    operation: str  # a key of `operations.OPERATIONS`
    shape: tuple = ()  # of its weight; () for a layer without parameters
    std: float | None = None  # standard deviation of its initial weight; None: the weight is initialised to ones
    bias: bool = True  # whether it has a bias, if it has a weight
    one_position: bool = False  # whether it is computed only at the position in each row that a classifier reads
    tied_to: str | None = None  # name of the layer whose weight it uses
    width: int = 0  # size of the last axis of its dropout mask; 0: no dropout here
    depth: int = 0  # distance from the input: a layer reads only outputs of layers with a smaller depth

    @property
    def parameters(self):
        """The prefix of the layer's parameter names: its own name, or that of the layer to which it is tied."""
        return self.tied_to or self.name

    @property
    def prefix(self):
        """The layer's name up to the last dot: "blocks.0.attn." for "blocks.0.attn.context"."""
        return self.name[: self.name.rfind(".") + 1]

    @property
    def mask_name(self):
        """The name of the layer's dropout mask: "embed", or a residual branch, such as "blocks.0.attn"."""
        return self.name.removesuffix(".residual")

    def parameter_shapes(self):
        """The shapes of the layer's own parameters, name -> shape, the weight before the bias."""
        if not self.shape or self.tied_to:
            return {}
        bias = {f"{self.name}.bias": self.shape[:1]} if self.bias else {}
        return {f"{self.name}.weight": self.shape, **bias}


def with_depths(layers):
    """Fill in the layers' depths; return name -> LayerSpec. Adjacent layers with the same operation share a depth."""
    by_name, depth, previous = {}, -1, None
    for layer in layers:
        depth += layer.operation != previous  # q, k and v share a depth
        by_name[layer.name] = layer._replace(depth=depth)
        previous = layer.operation
    return by_name


def check_config(config, *sizes):
    """Check the fields that all configurations share; `sizes` are the names of fields that must be ints ≥ 1."""
    check_fields(config, whole_number, *sizes)
    check_fields(config, whole_number, "n_layers", most=1000, why="more than any model has")
    check_fields(config, whole_number, "n_classes", least=0)
    check_fields(config, finite_number, "dropout", least=0, below=1)
    check_fields(config, instance_of, "extra", type_=dict, expected="a dict")
    if config.n_classes == 1:
        raise ValueError("n_classes: got 1, expected 0 (language model) or at least 2")


class Architecture(NamedTuple):
    """Everything that the package needs to know about an architecture; `gpt2.py` ends with an example.

    The functions connect the layers in `modules`: `run(name, *inputs)` computes a layer, and `back(name, dy)` computes
    the gradients of its inputs. Each backward function processes the layers of its forward function in reverse order.

    The layers that an adapter can adapt are all in the blocks, and their names end in "_proj". The other layers with
    weights are the norms, the embeddings (names ending in "_emb"; the first is "tok_emb") and, if the model has one,
    the last layer, "head".
    """

    name: str  # in our configuration files, in Hugging Face's (`model_type`), and in GGUF (`general.architecture`)
    config_class: type  # a frozen dataclass with vocab_size, n_positions, d_model, n_layers, n_classes, dropout, extra
    modules: Callable  # config -> {name: LayerSpec}, in execution order
    embed_forward: Callable  # (ids (B, T), run, start) -> (B, T, C); `start` is the position of the first id
    embed_backward: Callable  # (dx, back)
    block_forward: Callable  # (x, i, config, run) -> x after block i, (B, T, C)
    block_backward: Callable  # (dx, i, config, back) -> dx before block i
    output_forward: Callable  # (x, config, run) -> the head's input, (B, T, C), or (B, C) for a classifier
    output_backward: Callable  # (dh, config, back) -> dx after the last block
    file_names: str  # one line per layer: its Hugging Face and GGUF names, and our names for the layers in it
    peft_targets: tuple[str, ...]  # the layers that PEFT adapts by default, under Hugging Face's names
    writes: bool = True  # whether it can generate text: each token attends only to itself and earlier tokens
    hf_transposed: tuple[str, ...] = ()  # name endings of the layers that Hugging Face stores as (in, out)
    gguf_interleaved: tuple[str, ...] = ()  # name endings of the layers whose rows GGUF orders by rotation pairs
