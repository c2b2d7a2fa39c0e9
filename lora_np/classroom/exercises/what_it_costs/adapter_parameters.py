"""1. Warm-up: trainable parameters (2 points).

`shapes` maps the name of every parameter of a model to its shape: `blocks.0.attn.q_proj.weight` is (out, in),
`blocks.0.attn.q_proj.bias` is (out,), and there are also embedding tables and layer norms. `targets` is a tuple of
layer names, such as `("q_proj", "v_proj")`: in **every** block, the weight of each of these layers gets an adapter of
rank `r`. How many parameters does LoRA train? (`name.split(".")` splits a name at its dots.)

**Predict:** a model becomes twice as wide (both dimensions of its matrices double) and gets twice as many blocks. By
what factor does the model grow? By what factor do the adapters grow? What happens to the trained fraction?
"""

HINTS = {"trained": "Which names belong to a target, in every block? How many parameters do A and B add to each?"}
FORMULA = "trained = Σ r (out + in), over the weight matrices (out, in) of the targets in all blocks"


def adapter_parameters(shapes, targets, r):
    """shapes: dict, name -> tuple; targets: tuple of layer names; r an int -> trained, an int."""
    trained = 0
    for name, shape in shapes.items():
        layer = name.split(".")[-2]  # "q_proj" of "blocks.0.attn.q_proj.weight"
        if layer in targets and len(shape) == 2:  # its weight, not its bias
            n_out, n_in = shape
            trained += r * (n_out + n_in)  # B (out, r) and A (r, in)
    return trained
    # The model has 4 times as many entries in each matrix and twice as many matrices, so it is 8 times as large. There
    # are twice as many adapters, each with twice as many parameters, so the adapters are 4 times as large. The trained
    # fraction halves. That is why the fraction is so small for large models.


def draw(rng, size):
    """Draw the shapes of a model with several blocks; some targets are not square, so out and in differ."""
    C, F = size.C, size.F
    layers = {f"attn.{name}_proj": (C, C) for name in "qkvo"} | {"mlp.up_proj": (F, C), "mlp.down_proj": (C, F)}
    shapes = {"tok_emb.weight": (size.V, C), "pos_emb.weight": (size.T, C), "ln_f.weight": (C,), "ln_f.bias": (C,)}
    for block in range(size.N):
        shapes |= {f"blocks.{block}.{norm}.{leaf}": (C,) for norm in ("ln1", "ln2") for leaf in ("weight", "bias")}
        shapes |= {f"blocks.{block}.{name}.weight": shape for name, shape in layers.items()}
        shapes |= {f"blocks.{block}.{name}.bias": shape[:1] for name, shape in layers.items()}
    targets = (("q_proj", "up_proj"), ("k_proj", "v_proj", "down_proj"), ("up_proj", "o_proj"))[size.number]
    return {"shapes": shapes, "targets": targets, "r": size.r}


def adapted(i, ending):
    return i.r * sum(sum(shape) for name, shape in i.shapes.items() if name.endswith(ending))


MISTAKES = {
    "the targets' biases are counted as well": lambda i: sum(
        adapted(i, (f"{target}.weight", f"{target}.bias")) for target in i.targets
    ),
    "these are the targets' own parameters, not those of adapters": ("r * (n_out + n_in)", "n_out * n_in"),
    "all six linear layers of a block are counted": ("layer in targets", "layer.endswith('_proj')"),
    "this is the count for one block, but each block has its own adapters": lambda i: i.right["trained"] / i.size.N,
}
