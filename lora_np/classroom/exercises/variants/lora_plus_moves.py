"""3. LoRA+: two learning rates (3 points).

Take one step of gradient descent, with learning rate `lr` for `A` and `ratio · lr` for `B`. How does the adapter's
output, `s (x Aᵀ) Bᵀ`, change? Multiply out the new output, and compute the change as a sum of three terms: `through_A`,
the change if only `A` moves; `through_B`, the change if only `B` moves; and `both`, the additional change if both move.

**Predict first:** which of the three are zero in the first step, which starts from `B` = 0? If you halve `lr`, what
happens to each of the three terms? Which of the terms depend on `ratio`?
"""

HINTS = {
    "through_A": "Only A moves here, and B is unchanged. By how much does u change?",
    "through_B": "Only B moves here, and u is unchanged. Which learning rate does B have?",
    "both": "Multiply out (u + Δu)(B + ΔB)ᵀ. Which of the four terms have you not used yet?",
}
FORMULA = """ΔA = −lr dA,  ΔB = −lr · ratio · dB
through_A = s (x ΔAᵀ) Bᵀ,  through_B = s (x Aᵀ) ΔBᵀ,  both = s (x ΔAᵀ) ΔBᵀ"""


def lora_plus_moves(x, A, B, dA, dB, s, lr, ratio):
    """x (N, in); A, dA (r, in); B, dB (out, r); floats s, lr, ratio -> through_A, through_B, both, each (N, out)."""
    move_A = -lr * dA  # (r, in)
    move_B = -ratio * lr * dB  # (out, r)
    u, move_u = x @ A.T, x @ move_A.T  # (N, r)
    # (u + Δu)(B + ΔB)ᵀ − u Bᵀ = Δu Bᵀ + u ΔBᵀ + Δu ΔBᵀ
    return s * move_u @ B.T, s * u @ move_B.T, s * move_u @ move_B.T  # (N, out) each
    # At B = 0 the first term is zero, and so is the third, because dA is zero there. Halving lr halves the first two
    # and divides the third by four: for small steps, the third is negligible. The second and the third depend on
    # `ratio`.


def draw(rng, size):
    drawn = size.normals(rng, x="N n_in", A="r n_in", B="n_out r", dA="r n_in", dB="n_out r")
    return drawn | {"s": size.s, "lr": float(rng.uniform(0.2, 0.6)), "ratio": float(rng.uniform(3, 9))}


MISTAKES = {
    "this is the output after A's move, not its change": lambda i: i.right["through_A"] + i.s * i.x @ i.A.T @ i.B.T,
    "this is the output after B's move, not its change": lambda i: i.right["through_B"] + i.s * i.x @ i.A.T @ i.B.T,
    "this is the total change: subtract the other two terms": lambda i: sum(i.right.values()),
}
