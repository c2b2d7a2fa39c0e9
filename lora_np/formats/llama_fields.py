"""Convert the configuration of Llama and its relatives to and from `config.json`, and read it from GGUF metadata.

A model for longer texts divides RoPE's frequencies. transformers computes the divisors from a few numbers; a GGUF file
of a Llama 3 contains the divisors themselves. Our configuration has the divisors.
"""

import numpy as np

from ..checked import errors_of, finite_number, quoted, whole_number
from ..model import ARCHITECTURES, architecture
from .checkpoint import check_depth
from .foreign_keys import check_keys, foreign_keys, our_fields, values_in

DEFAULTS = {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}  # transformers' defaults
OWN_DEFAULTS = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
    "smollm3": {"num_key_value_heads": 4, "rope_theta": 2e6, "tie_word_embeddings": True},
}
NOT_IN_FILES = {"bos_token_id": None, "eos_token_id": None}  # replaced by those of the tokenizer
ROPE_TYPES = ("default", "linear", "llama3")
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # of 3.1 to 3.3
FREQUENCIES = "rope_freqs.weight"


def completed_llama(name, path, fields, tensors):
    """The fields of a model's `config.json` (transformers 4 or 5) with defaults added, and additional fields of ours.

    `name` is the model_type; see `FileFormat`.
    """
    heads, width = fields.get("num_attention_heads"), fields.get("hidden_size")
    default = {**DEFAULTS, "num_key_value_heads": heads, "head_dim": head_size(width, heads), **OWN_DEFAULTS[name]}
    if fields.get("num_key_value_heads", 0) is None:
        default["num_key_value_heads"] = heads
    optional = our_fields(f"config.json of {name}", "optional")
    fields = default | {key: value for key, value in fields.items() if key not in optional or value is not None}
    rope, fields["rope_theta"] = rope_of(path, fields)
    more = {"tied": fields.get("tie_word_embeddings", False)}
    with errors_of(path):
        if rope:
            fields["rope_parameters"] = rope
            more["rope_divisors"] = divisors(rope, fields["head_dim"], fields["rope_theta"])
        window = fields.pop("sliding_window", None) if name == "mistral" else None
        if window is not None:
            window = whole_number("sliding_window", window)
            fields["max_position_embeddings"] = min(window, fields["max_position_embeddings"])
    if name == "smollm3":
        more["unrotated"] = unrotated(path, fields)
    return fields, more


def head_size(width, heads):
    """The default size of a head; 1 if the fields are not whole numbers, for which there is an error later."""
    return width // heads if isinstance(width, int) and isinstance(heads, int) and heads > 0 else 1


def rope_of(path, fields):
    """Remove the fields of RoPE; return the parameters of its scaling, or None, and θ."""
    ropes, thetas, scaled = {name: fields.pop(name, None) for name in ("rope_scaling", "rope_parameters")}, [], None
    for name, value in ropes.items():
        rope = value or {}
        kinds = [rope[key] for key in ("rope_type", "type") if key in rope] if isinstance(rope, dict) else [rope]
        if not isinstance(rope, dict) or any(kind is not None and kind not in ROPE_TYPES for kind in kinds):
            raise ValueError(f"{path}: {name} is {quoted(value)}, expected one of {', '.join(ROPE_TYPES)}")
        thetas += [rope.get("rope_theta", fields["rope_theta"])] * (value is not None)
        if kinds and kinds[0] not in (None, "default"):
            scaled = {**rope, "rope_type": kinds[0]}
    if len(thetas) == 2 and thetas[0] != thetas[1]:  # transformers 4 and 5 differ in which of them they read
        raise ValueError(f"{path}: has both rope_scaling and rope_parameters, with different values of rope_theta")
    return scaled, (thetas or [fields["rope_theta"]])[0]


def divisors(rope, head_size, theta):
    """The numbers by which a scaled RoPE divides its D/2 frequencies.

    "linear" divides all of them by a factor f (Chen et al. 2023, Extending context window). Llama 3 leaves those with
    short wavelengths λ as they are, divides those with long ones by f, and interpolates between the two: with the
    original context n, the divisor is 1 for λ < n/high, f for λ > n/low, and otherwise

        1 / ((1 − t)/f + t)        t = (n/λ − low) / (high − low)

    Parameters
    ----------
    rope : dict, transformers' parameters of the scaling
    head_size : int, D
    theta : float

    Returns
    -------
    tuple of D/2 floats
    """
    names = ("factor", *LLAMA3) if rope["rope_type"] == "llama3" else ("factor",)
    factor, *more = (finite_number(f"rope_parameters: {name}", rope.get(name), above=0) for name in names)
    if not more:
        return (factor,) * (head_size // 2)
    low, high, context = more
    if low == high:
        raise ValueError(f"rope_parameters: low_freq_factor and high_freq_factor are both {low}")
    wavelengths = 2 * np.pi * float(theta) ** (np.arange(0, head_size, 2) / head_size)
    t = (context / wavelengths - low) / (high - low)
    between = 1 / ((1 - t) / factor + t)
    long, short = wavelengths > context / low, wavelengths < context / high
    return tuple(np.where(long, factor, np.where(short, 1.0, between)).tolist())


def rope_parameters(config):
    """The parameters with which transformers computes a configuration's divisors; raises ValueError without any."""
    size, theta, wanted = config.head_size, config.rope_theta, config.rope_divisors
    if not wanted:
        return {"rope_type": "default", "rope_theta": theta}
    given = config.extra.get("rope_parameters")
    tried = [{"rope_type": "linear", "factor": wanted[0]}, {"rope_type": "llama3", "factor": max(wanted), **LLAMA3}]
    for rope in [given] * bool(given) + tried:
        if np.allclose(divisors(rope, size, theta), wanted, rtol=1e-6, atol=0):  # a GGUF file's are float32
            return {**rope, "rope_theta": theta}
    raise ValueError("rope_divisors: transformers has no parameters for them; write a GGUF file instead")


def unrotated(path, fields):
    """The blocks of a SmolLM3 without rotary positions."""
    n_layers, rotated = fields.get("num_hidden_layers"), fields.get("no_rope_layers")
    step = fields.setdefault("no_rope_layer_interval", 4)
    if rotated is None and isinstance(n_layers, int) and isinstance(step, int) and step > 0:
        rotated = [int((i + 1) % step != 0) for i in range(n_layers)]
    if not isinstance(rotated, list) or not isinstance(n_layers, int) or len(rotated) < n_layers:
        raise ValueError(f"{path}: no_rope_layers is {quoted(rotated)}, expected a list with a 0 or 1 for each layer")
    return tuple(i for i, is_rotated in enumerate(rotated[:n_layers]) if not is_rotated)


def llama_fields(config):
    """The fields of a model's `config.json`; see `FileFormat`."""
    name = architecture(config).name
    fields = {"rope_parameters": rope_parameters(config), "hidden_act": "silu", "tie_word_embeddings": config.tied}
    if name == "smollm3":
        fields["no_rope_layers"] = [int(i not in config.unrotated) for i in range(config.n_layers)]
    return NOT_IN_FILES, {"model_type": name, **values_in(f"config.json of {name}", config), **fields}


# ---------------------------------------------------------------- GGUF


def config_from_gguf(name, path, fields, tensors):
    """The configuration of a model from a GGUF file's metadata; `name` is the file's architecture."""
    section, record = f"GGUF of {name}", ARCHITECTURES[name]
    check_keys(path, fields, foreign_keys()[section], f"{name}.")
    values = {}
    for key, ours in our_fields(section, "required").items():
        if f"{name}.{key}" not in fields:
            raise ValueError(f"{path}: {name}.{key} is missing")
        values[ours] = fields[f"{name}.{key}"]
    check_depth(path, f"{name}.block_count", values["n_layers"], tensors)
    values["n_kv_heads"] = fields.get(f"{name}.attention.head_count_kv", values["n_heads"])
    size = fields.get(f"{name}.attention.key_length", head_size(values["d_model"], values["n_heads"]))
    for key in (f"{name}.attention.value_length", f"{name}.rope.dimension_count"):
        if fields.get(key, size) != size:
            raise ValueError(f"{path}: {key} is {quoted(fields[key])}, expected the head size {size}")
    table = tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        found = "missing" if table is None else f"of shape {table.shape}"
        raise ValueError(f"{path}: token_embd.weight is {found}, expected a matrix")
    biases = ("output",) if record.config_class.qkv_bias else ("q", "k", "v", "output")
    with errors_of(path):
        if name == "smollm3":
            values["unrotated"] = every_fourth(whole_number("n_layers", values["n_layers"]))
        return record.config_class(
            vocab_size=table.shape[0],
            **values,
            head_size=size,
            rope_theta=fields.get(f"{name}.rope.freq_base", 10000.0),
            rope_divisors=gguf_divisors(name, fields, tensors, size),
            tied="output.weight" not in tensors,
            attention_bias=any(f"blk.0.attn_{x}.bias" in tensors for x in biases),
            mlp_bias=any(f"blk.0.ffn_{x}.bias" in tensors for x in ("gate", "up", "down")),
            extra={"model_type": name},
        )


def every_fourth(n_layers):
    """The blocks of a SmolLM3 that have no rotary positions in llama.cpp."""
    return tuple(range(3, n_layers, 4))


def gguf_divisors(name, fields, tensors, size):
    """The divisors of RoPE's frequencies in a GGUF file, from two fields and a tensor, which is removed."""
    factor = fields.get(f"{name}.rope.scaling.factor", fields.get(f"{name}.rope.scale_linear", 0))
    factor = finite_number(f"{name}.rope.scaling.factor", factor, least=0) or 1.0
    if fields.get(f"{name}.rope.scaling.type") == "none":
        factor = 1.0
    one_each = tensors.pop(FREQUENCIES, None) if name == "llama" else None
    if one_each is not None and one_each.shape != (size // 2,):
        raise ValueError(f"{FREQUENCIES} has shape {one_each.shape}, expected {(size // 2,)}")
    if one_each is None and factor == 1:
        return ()
    return tuple((factor * (np.ones(size // 2) if one_each is None else one_each.astype(np.float64))).tolist())


def gguf_rope(config):
    """The fields and tensors of a GGUF file that say how positions are encoded, as two dicts."""
    name, wanted = architecture(config).name, config.rope_divisors
    if config.unrotated != (every_fourth(config.n_layers) if name == "smollm3" else ()):
        raise ValueError(f"unrotated: got {config.unrotated}; llama.cpp has only every fourth block of SmolLM3")
    if name != "llama" and (config.attention_bias or config.mlp_bias):
        raise ValueError(f"attention_bias: llama.cpp's {name} has no bias in attn_output and in the MLP")
    if not wanted:
        return {}, {}
    if len(set(wanted)) == 1:
        return {f"{name}.rope.scaling.type": "linear", f"{name}.rope.scaling.factor": float(wanted[0])}, {}
    if name != "llama":
        raise ValueError(f"rope_divisors: in {name}, llama.cpp has only linear scaling")
    return {}, {FREQUENCIES: np.array(wanted, np.float32)}
