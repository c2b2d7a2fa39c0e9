"""6. A chain of layers (5 points).

The hard one. Consider a chain of linear layers, with layer 0 at the bottom: layer `l` maps its input, (N, widths[l]),
to (N, widths[l + 1]), the input of the next layer. All `W` are frozen. Layer `l` has an adapter of rank `ranks[l]`, or
no adapter if `ranks[l]` is 0. The loss, computed from the last layer's output, provides that layer's `dy`; layer 0's
input is the training data.

Count the FLOPs of the forward and backward passes if **no unnecessary product is computed**. Draw the chain and work
down from the loss. At each layer, ask: is anything trained *below*, so that `dx` is needed? Which products are needed
for `dx`? Which products does an adapter on this layer need, even if nothing below is trained?

**Predict:** suppose that only one of 32 layers of equal size has an adapter. How many products of the size of `x Wᵀ`
does the backward pass contain if that adapter is on the last layer, and how many if it is on the first? So where must
the adapter be to save two thirds of a full step's FLOPs, and where does it save only one third?
"""

HINTS = {
    "forward": "Every layer computes x Wᵀ. What else do layers with an adapter compute?",
    "backward": "Begin at the top, with the loss's gradient. Which is the last array that you need on the way down?",
}
FORMULA = """forward: 2 N (in out + r (in + out)) for each layer
backward, for each layer: 2 N r (in + 2 out) for dA, dB and du;  if there is an adapter below it, also
2 N (in out + r in) for dx = dy W + du A"""


def chain_flops(N, widths, ranks):
    """N an int, widths: list of L + 1 ints, ranks: list of L ints -> forward, backward, in FLOPs."""
    forward = backward = 0  # in multiply-adds per row
    for layer, (n_in, n_out, r) in enumerate(zip(widths, widths[1:], ranks)):
        wide, down, up = n_in * n_out, n_in * r, r * n_out  # down and up are 0 where there is no adapter
        forward += wide + (down + up)  # x Wᵀ, and u = x Aᵀ, u Bᵀ
        backward += up + up + down  # du = s dy B, dB = s dyᵀ u, dA = duᵀ x
        if any(ranks[:layer]):  # anything trained below?
            backward += wide + down  # dx = dy W + du A
    return 2 * N * forward, 2 * N * backward
    # With the adapter on the last layer, the backward pass has three thin products but none as large as x Wᵀ, and the
    # step costs little more than the forward pass, a third of a full step. With the adapter on the first layer, it has
    # 31 large products, and the step costs two thirds of a full step. (Both train the same number of weights.) Layers
    # above the highest adapter do need dx: the gradient comes from above.


def draw(rng, size):
    """Draw a chain with layers without adapters below, between and above those with adapters. All widths differ."""
    ranks = ([0, 2, 0, 3, 0], [0, 0, 3, 1, 0, 2, 0], [0, 3, 0, 0, 2, 0])[size.number]
    return {"N": size.N, "widths": rng.permutation(range(15, 16 + len(ranks))).tolist(), "ranks": ranks}


MISTAKES = {
    "layers without an adapter do not pass the gradient on": ("if any(ranks[:layer])", "if r and any(ranks[:layer])"),
    "every layer except the first computes dx, but the lowest adapter needs none": ("any(ranks[:layer])", "layer"),
    "the lowest adapter's du is missing: dA needs it": ("+= up + up + down", "+= up + up * any(ranks[:layer]) + down"),
}

AFTER = """**Beyond the points.** Compare your counts with this package's. Type this in; each line should show the same
values twice:

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
