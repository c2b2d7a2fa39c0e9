"""Cells that go wrong when they are run: `# ==`, the exercise, and hostile; then what is said."""
# == adapter_size: hostile, SyntaxError
def adapter_size(n_out, n_in, r) return r

# == energy_share: hostile, it ends the Python process
def energy_share(sigma, k):
    import os; os._exit(0)

# == rank_at_energy: hostile, it was stopped after 3 s (is there an infinite loop?)
def rank_at_energy(*given):
    while True:
        try:
            while 1: pass
        except: pass

# == product_column: hostile, it was stopped after 3 s (is there an infinite loop?)
def product_column(B, A, j):
    while len(B) > 1000: pass
    return B @ A[:, j]

# == product_singular_values: hostile, its return value cannot be read
import os
for descriptor in range(3, 9):
    try:
        while True:
            os.write(descriptor, b'{}\n')
    except OSError:
        pass
