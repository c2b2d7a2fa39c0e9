"""A chain.

The hard one. A chain of linear layers, with layer 0 at the bottom: layer `l` turns its input, (N, widths[l]), into (N,
widths[l + 1]), the input of the next one. All `W` are frozen. Layer `l` has an adapter of rank `ranks[l]`, or none if
that is 0. The loss is above the last layer and hands it its `dy`; the input of layer 0 is data.

Count the FLOPs of the forward and of the backward pass, if **no product is computed that nobody needs**. Draw the chain
and go down from the loss. At each layer ask three things. Is anything trained *below*, so that `dx` must be handed on?
Which products make up that `dx`? And what does an adapter here need for itself, even if nothing below is trained?

**Predict,** for 32 layers of one size with a single adapter among them: how many products as large as `x Wᵀ` does the
backward pass have if that adapter is in the last layer, and how many if it is in the first? So where does LoRA save two
thirds of a full step, and where one third?
"""

POINTS = 5
OUTPUTS = ("forward", "backward")
HINTS = {
    "forward": "Every layer computes x Wᵀ. What do those with an adapter compute besides?",
    "backward": "Begin at the top, with the loss's gradient. Which array is the last on the way down that is read?",
}
FORMULA = """forward: 2 N (in out + r (in + out)) of each layer
backward, of each layer: 2 N r (in + 2 out) for dA, dB and du;  and if an adapter is below it,
2 N (in out + r in) more for dx = dy W + du A"""


def chain_flops(N, widths, ranks):
    """N a whole number, widths: list of L + 1, ranks: list of L whole numbers -> forward, backward, in FLOPs."""
    forward = backward = 0  # in multiply-adds of one row
    for layer, (n_in, n_out, r) in enumerate(zip(widths, widths[1:], ranks)):
        wide, down, up = n_in * n_out, n_in * r, r * n_out  # down and up are 0 where there is no adapter
        forward += wide + (down + up)  # x Wᵀ, and u = x Aᵀ, u Bᵀ
        backward += up + up + down  # du = s dy B, dB = s dyᵀ u, dA = duᵀ x
        if any(ranks[:layer]):  # anything trained below?
            backward += wide + down  # dx = dy W + du A
    return 2 * N * forward, 2 * N * backward
    # In the last layer none: its three thin products are the whole backward pass, and the step costs little more than
    # the forward pass, a third of a full one. In the first 31, and the step costs two thirds. (Both train as many
    # numbers.) Layers above the highest adapter do hand dx on: the gradient comes from up there.


def draw(rng, size):
    """Frozen layers below the lowest adapter, between two adapters, and above the highest. Widths all differ."""
    ranks = ([0, 2, 0, 3, 0], [0, 0, 3, 1, 0, 2, 0], [0, 3, 0, 0, 2, 0])[size.number]
    return {"N": size.N, "widths": rng.permutation(range(15, 16 + len(ranks))).tolist(), "ranks": ranks}


def with_dx(i, hands_on):
    """The backward pass if other layers hand a dx on: those of which hands_on(number, rank) is true."""
    layers = zip(range(len(i.ranks)), i.ranks, i.widths, i.widths[1:])
    return 2 * i.N * sum(r * (n_in + 2 * n_out) + hands_on(l, r) * n_in * (n_out + r) for l, r, n_in, n_out in layers)


MISTAKES = {
    "backward": [
        (
            "only layers that have an adapter hand a dx on, but it must pass through the others as well",
            lambda i: with_dx(i, lambda n, r: any(i.ranks[:n]) and r > 0),
        ),
        (
            "every layer except the first hands a dx on, but below the lowest adapter nobody reads it",
            lambda i: with_dx(i, lambda n, r: n > 0),
        ),
        (
            "the lowest adapter's du is missing: dA reads it, even if no dx does",
            lambda i: i.right["backward"] - 2 * i.N * next(r * n_out for r, n_out in zip(i.ranks, i.widths[1:]) if r),
        ),
    ]
}

AFTER = """**Beyond the points.** Compare your counts with the model's. Type this in; each line should repeat itself:

    from lora_np.adapters import AdapterConfig
    from lora_np.analysis import step_bytes
    from lora_np.formats import load_pretrained
    from lora_np.model import parameter_shapes

    _, config = load_pretrained()
    lora = AdapterConfig(r=8, targets=("q_proj", "v_proj"))
    shapes = parameter_shapes(config)
    held = step_bytes(config, 32, 64, lora)

    trained = adapter_parameters(shapes, lora.targets, lora.r)
    n_base = sum(int(np.prod(shape)) for shape in shapes.values())
    print(training_bytes(n_base, trained, 4, 4), (held.parameters, held.gradients, held.optimiser))

    inputs = [name for name in held.activations if name == "blocks.1.ln1" or name.endswith("lora_A")]
    print(kept_inputs(32 * 64, config.d_model, config.d_ff, lora.targets, lora.r, 4)[1],
          sum(held.activations[name] for name in inputs if name.startswith("blocks.1")))

Then change the targets to `("o_proj", "down_proj")`, and extend `inputs` until the last line agrees again.
"""
