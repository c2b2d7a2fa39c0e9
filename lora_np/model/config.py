"""The shape of a model."""

from dataclasses import dataclass, field
from numbers import Real


def positions_read(config, module, T):
    """At how many of a row's T positions a module works: at all of them, or at one.

    A classifier reads one position of the last block's output. What leads there alone, from that block's
    query to `ln_f`, is computed at that position and nowhere else; only its keys and values, which the query
    looks at, are needed at all of them.

    Parameters
    ----------
    config : ModelConfig
    module : str, such as "blocks.0.attn.q_proj", or a block's branch such as "blocks.0.mlp"
    T : int
    """
    if not config.n_classes:
        return T
    last = f"blocks.{config.n_layers - 1}."
    after_keys = module.startswith(last) and not module.endswith((".ln1", ".k_proj", ".v_proj"))
    return 1 if after_keys or module in ("ln_f", "head") else T


@dataclass(frozen=True)
class ModelConfig:
    """A pre-norm decoder-only transformer with learned positions: GPT-2's, at any size.

    Parameters
    ----------
    vocab_size : int, V
    n_positions : int, the longest sequence T
    d_model : int, C
    n_layers : int
    n_heads : int, H, a divisor of d_model
    d_ff : int, F, the width between the MLP's two layers (4 C in GPT-2)
    n_classes : int, 0 for a language model (its head is tied to the token embedding), or at least 2
        for a classifier that reads the last real token
    dropout : float in [0, 1), on the embeddings and on both residual branches, while training
    layer_norm_eps : float
    extra : dict, fields of a configuration file that this package has no use for: kept, and written again

    Raises
    ------
    ValueError
        At construction, naming the field, what came and what was expected.
    """

    vocab_size: int
    n_positions: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    n_classes: int = 0
    dropout: float = 0.0
    layer_norm_eps: float = 1e-5
    extra: dict = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        for name in ("vocab_size", "n_positions", "d_model", "n_layers", "n_heads", "d_ff"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: got {value!r}, expected a whole number of at least 1")
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads: {self.n_heads} does not divide d_model = {self.d_model}")
        if isinstance(self.n_classes, bool) or not isinstance(self.n_classes, int):
            raise ValueError(f"n_classes: got {self.n_classes!r}, expected a whole number")
        if self.n_classes < 0 or self.n_classes == 1:
            raise ValueError(f"n_classes: got {self.n_classes}, expected 0 (language model) or at least 2")
        eps = self.layer_norm_eps
        if isinstance(eps, bool) or not isinstance(eps, Real) or not 0 < eps < 1:
            raise ValueError(f"layer_norm_eps: got {eps!r}, expected a number above 0 and below 1")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, Real):
            raise ValueError(f"dropout: got {self.dropout!r}, expected a number")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout: got {self.dropout}, expected 0 ≤ dropout < 1")
        if not isinstance(self.extra, dict):
            raise ValueError(f"extra: got {self.extra!r}, expected a dict")
        for name in ("layer_norm_eps", "dropout"):
            # NumPy's scalars would turn float32 arrays into float64.
            object.__setattr__(self, name, float(getattr(self, name)))
