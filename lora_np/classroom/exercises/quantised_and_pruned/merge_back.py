"""8. Merging back (3 points).

The hard one. Training is over, and the result must be a single matrix again, in eight bits like the base. So quantise
`Ŵ + s B A` as in exercise 1, and return `new_codes` and `new_scales`. Also return `lost`, the norm of the rounding
error, ‖dequantised result − (Ŵ + ΔW)‖, divided by ‖ΔW‖.

**Predict first:** if the update is so small that no weight moves by half a step, what are the new codes, and is `lost`
about 0 or about 1? **When your code passes:** which single entry of an update can spoil an entire row? Try an `A` and a
`B` whose product has only one non-zero entry, at the position of a row's largest weight. Can `lost` exceed 1?
"""

import numpy as np

from .int8_quantise import follow, int8_quantise

HINTS = {
    "new_codes": "Dequantise, add the update, quantise again. What is a row's new ruler? Where on it are the weights?",
    "new_scales": "A ruler must reach the largest weight of its row. What are the row's weights now?",
    "lost": "Which matrix did you want, and which one did you get? How large is their difference relative to ΔW?",
}
FORMULA = """merged = Ŵ + s B A,  Ŵ = scales ⊙ codes, row by row
new_scales_o = max_i |merged_oi| / 127,  new_codes = merged / new_scales, rounded
lost = ‖new_scales ⊙ new_codes − merged‖ / ‖s B A‖"""


def merge_back(codes, scales, A, B, s):
    """codes (out, in) int8, scales (out,), A (r, in), B (out, r), s -> new_codes (out, in), new_scales (out,), lost."""
    W_hat = scales[:, None] * codes  # (out, in), dequantised: codes on different rulers cannot be added
    delta = s * B @ A  # (out, in)
    merged = W_hat + delta  # (out, in)
    new_scales = np.abs(merged).max(axis=1) / 127  # (out,): the largest weights have changed, and so have the rulers
    steps = np.where(new_scales > 0, new_scales, 1.0)
    new_codes = np.rint(merged / steps[:, None]).astype(np.int8)  # (out, in)
    back = new_scales[:, None] * new_codes  # (out, in)
    lost = np.linalg.norm(back - merged) / np.linalg.norm(delta)
    return new_codes, new_scales, lost
    # A tiny update changes almost no codes: the result is nearly Ŵ, so nearly all of ΔW is lost, and `lost` is about 1.
    # If the largest weight of a row has grown, all marks of this row have moved, and all its other weights move with
    # their marks or to other marks. In a long row, this error exceeds ‖ΔW‖, so `lost` is above 1.


def draw(rng, size):
    """Draw updates whose entries have standard deviations of about 2, 0.4 and 5 quantisation steps of the base.

    No weight is near the midpoint between two marks, so rounding errors cannot change a code.
    """
    s = size.s
    while True:
        W, A, B = size.normals(rng, W="n_out n_in", A="r n_in", B="n_out r").values()
        codes, scales = int8_quantise(W)
        scales = scales * rng.uniform(0.5, 2.0, size.n_out)
        B *= [2.0, 0.4, 5.0][size.number] * scales.mean() / np.std(B @ A)
        V = scales[:, None] * codes + B @ A
        marks = V / int8_quantise(V)[1][:, None]
        if np.all(np.abs(marks % 1 - 0.5) > 1e-4):
            return {"codes": codes, "scales": scales, "A": A, "B": B / s, "s": s}


def compared(i, outputs):
    """Also accept codes that fit the student's own scales, and a `lost` that fits the student's codes and scales."""
    codes, scales, lost = outputs.values()
    if i.right and np.shape(codes) == i.codes.shape and np.shape(scales) == i.scales.shape and np.any(codes):
        delta = i.s * i.B @ i.A
        merged = i.scales[:, None] * i.codes + delta
        own_lost = np.linalg.norm(scales[:, None] * codes - merged) / np.linalg.norm(delta)
        if follow(codes, scales, merged):
            outputs = outputs | {"new_codes": i.right["new_codes"]}
        if lost is not None and np.ndim(lost) == 0 and np.isclose(lost, own_lost, rtol=1e-5):
            outputs = outputs | {"lost": i.right["lost"]}
    return outputs


def kept(i):
    return np.rint(i.codes + i.s * i.B @ i.A / i.scales[:, None])


MISTAKES = {
    "the old rulers are kept, but the largest weight of a row may now be beyond their ends": kept,
    "the old rulers are kept, and weights beyond their ends are clipped": lambda i: np.clip(kept(i), -127, 127),
    "the codes of Ŵ and ΔW are added, but their steps differ": lambda i: 1.0 * i.codes + int8_quantise(i.B @ i.A)[0],
}
