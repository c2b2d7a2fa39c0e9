"""Warm-up: what is trained.

`shapes` holds the shape of every parameter of a model under its name in the code: `blocks.0.attn.q_proj.weight` is
(out, in), `blocks.0.attn.q_proj.bias` is (out,), and there are also tables and layer norms. `targets` names layers, as
in `("q_proj", "v_proj")`: in **every** block, the weights of these layers get an adapter of rank `r`. How many numbers
does LoRA train? (`name.split(".")` cuts a name at its dots.)

**Predict:** a model becomes twice as wide (all sides of its matrices double) and has twice as many blocks. By which
factor does the model grow, by which do the adapters, and what happens to the share that is trained?
"""

POINTS = 2
OUTPUTS = ("trained",)
HINTS = {"trained": "Which names belong to a target, in every block? What do A and B add beside a single matrix?"}
FORMULA = "trained = Σ r (out + in), over the weights of all layers whose own name is among the targets"


def adapter_parameters(shapes, targets, r):
    """shapes: dict, name -> tuple; targets: tuple of names of layers; r a whole number -> trained, a whole number."""
    trained = 0
    for name, shape in shapes.items():
        layer = name.split(".")[-2]  # "q_proj" of "blocks.0.attn.q_proj.weight"
        if layer in targets and len(shape) == 2:  # its weight, not its bias
            n_out, n_in = shape
            trained += r * (n_out + n_in)  # B (out, r) and A (r, in)
    return trained
    # The model: 4 times the numbers in each matrix and twice as many matrices, 8 times. The adapters: twice the sides,
    # twice as many, 4 times. The share halves. That is why it is so small for large models.


def draw(rng, size):
    """A whole model's shapes, in several blocks; the targets are not all square, so that out cannot be taken for in."""
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
    "trained": [
        (
            "the targets' biases have adapters as well",
            lambda i: sum(adapted(i, (f"{target}.weight", f"{target}.bias")) for target in i.targets),
        ),
        ("all six linear layers of a block are counted, not only the targets", lambda i: adapted(i, "_proj.weight")),
        ("this is one block's count, but each block has adapters of its own", lambda i: i.right["trained"] / i.size.N),
    ]
}
