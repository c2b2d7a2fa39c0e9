"""2. One layer (4 points).

Consider a linear layer in the middle of a model: `x` is (N, in), and `dx` is needed. Count the FLOPs of its forward and
backward passes for full fine-tuning (`W` is trained) and for LoRA (`W` is frozen, `A` and `B` are trained, and `ΔW` is
never formed). The lesson's ratio holds for a square `W`, but most weights are not square.

**List first:** there are three products for full fine-tuning, and eight for LoRA. **Predict:** which of the four counts
is smallest? Does LoRA's backward pass cost twice as much as its forward pass? **When your code passes,** derive the
ratio of the FLOPs of LoRA's step to those of the full step, for any in and out. Do you get the lesson's 2/3 + 2r/C if
both dimensions are C? At what rank does LoRA start to cost more than full fine-tuning for an `up_proj` of (1024, 256)?
"""

HINTS = {
    "full_forward": "(N, in) times (in, out): how many entries are in the result, and how many FLOPs does each take?",
    "full_backward": "Which two gradients are matrix products? Write down their shapes, and count as before.",
    "lora_forward": "x Wᵀ is still computed. Which two thin products are added?",
    "lora_backward": "dx has a term with W and one with A. Which products give dA, dB, dx? Which result is used twice?",
}
FORMULA = """full: forward 2 N in out, backward 4 N in out
LoRA: forward 2 N in out + 2 N r (in + out), backward 2 N in out + 4 N r (in + out)"""


def layer_flops(N, n_in, n_out, r):
    """All arguments ints -> full_forward, full_backward, lora_forward, lora_backward, in FLOPs."""
    wide = 2 * N * n_in * n_out  # x Wᵀ: (N, in) (in, out); the same for dy W and for dyᵀ x
    down = 2 * N * n_in * r  # u = x Aᵀ: (N, in) (in, r); the same for du A and for dA = duᵀ x
    up = 2 * N * r * n_out  # u Bᵀ: (N, r) (r, out); the same for du = dy B and for dB = dyᵀ u
    full_forward = wide
    full_backward = wide + wide  # dx = dy W, dW = dyᵀ x
    lora_forward = wide + down + up
    lora_backward = wide + up + down + down + up  # dy W, du, du A, dA, dB; du is used twice
    return full_forward, full_backward, lora_forward, lora_backward
    # Full fine-tuning's forward pass costs least. LoRA's backward pass costs two thin products more than its forward
    # pass, so less than twice as much. The ratio is (2 wide + 3 down + 3 up) / (3 wide) = 2/3 + r (in + out) / (in ·
    # out), and 2/3 + 2r/C if both dimensions are C. The ratio is 1 at r = in · out / (3 (in + out)), which is about 68
    # for (1024, 256).


def draw(rng, size):
    return {"N": size.N, "n_in": 4 * size.n_in, "n_out": 4 * size.n_out, "r": size.r}


MISTAKES = {
    "the bias is counted, but only matrix products count": lambda i: {
        name: i.right[name] + i.N * i.n_out for name in ("full_forward", "lora_forward")
    },
    "B A is formed and added to W, but in training x is multiplied by Aᵀ and then by Bᵀ": lambda i: (
        i.right["full_forward"] + 2 * i.n_out * i.r * i.n_in
    ),
}
