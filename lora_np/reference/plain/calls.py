"""Call an operation of the plain program, or its backward pass, with arguments that are found by name."""

OPERATIONS = {  # operation -> names of its outputs, and of the operands whose gradients its backward pass returns
    "linear": ("y", "x weight bias"),
    "layer_norm": ("inv_std x_hat y", "bias weight x"),
    "rms_norm": ("inv_rms x_hat y", "weight x"),
    "gelu": ("y slope", "x"),
    "gelu_erf": ("y slope", "x"),
    "mean_pool": ("y", "x"),
    "swiglu": ("y", "up gate"),
    "softmax": ("probs", "x"),
    "attention": ("scores probs context", "v probs scores q k"),
    "rope": ("y", "x"),
    "embedding": ("y", "weight"),
    "cross_entropy": ("loss", "logits"),
    "linear_cross_entropy": ("loss", "weight x"),
    "token_log_probs": ("log_probs", "weight x"),
    "dropout": ("y", "x"),
}
ADAPTERS = {
    "lora": ("y su", "x weight bias lora_B lora_A"),
    "dora": ("y norm h su", "x weight bias lora_magnitude_vector lora_B lora_A"),
    "qalora": ("y pooled su", "x bias lora_B lora_A"),
}
NAMES = OPERATIONS | ADAPTERS


def forward(operations, name, values):
    """The outputs of an operation, by name.

    operations : the module of the operations, or a copy of it with mistakes
    values : dict, parameter of the operation -> its argument; parameters without one are None
    """
    return called(getattr(operations, name), values, NAMES[name][0])


def backward(operations, name, values):
    """The gradients of an operation's operands, by name; `values` also has its outputs and the upstream gradient."""
    return called(getattr(operations, f"{name}_backward"), values, NAMES[name][1])


def delta(operations, name, values):
    """The update of the weight of an adapted layer."""
    return called(getattr(operations, f"{name}_delta"), values, "delta")["delta"]


def called(function, values, names):
    code = function.__code__
    results = function(*map(values.get, code.co_varnames[: code.co_argcount]))
    return dict(zip(names.split(), results if isinstance(results, tuple) else (results,)))


def under(prefix, t):
    """The arrays whose names start with a prefix, with the prefix removed."""
    return {name.removeprefix(prefix): array for name, array in t.items() if name.startswith(prefix)}
