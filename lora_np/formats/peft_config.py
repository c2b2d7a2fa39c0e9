"""Interpret `adapter_config.json` as PEFT does: which layers are targets, and their ranks and scales.

The rules follow PEFT (peft.tuners.tuners_utils.check_target_module_exists, peft.utils.other.get_pattern_key), including
its defaults for missing fields.
"""

import math
import re
from itertools import zip_longest

from ..adapters.config import alpha_number
from ..checked import quoted, shown, whole_number
from .checkpoint import read_object
from .foreign_keys import check_keys, foreign_keys
from .patterns import match_patterns

TYPES = {  # field that may be missing or null -> (type of the value or of the items in a list, expected value in words)
    "rank_pattern": (dict, "an object of layer -> number"),
    "alpha_pattern": (dict, "an object of layer -> number"),
    "target_modules": (str, "a string or a list of strings"),
    "exclude_modules": (str, "a string or a list of strings"),
    "layers_pattern": (str, "a string or a list of strings"),
    "modules_to_save": (str, "a string or a list of strings"),
    "layers_to_transform": (int, "an integer or a list of integers"),
}
# For each field with regular expressions: the text that PEFT adds before and after each expression, and the `re`
# function that it calls.
PATTERNS = {
    "target_modules": ("", "", "fullmatch"),
    "exclude_modules": ("", "", "fullmatch"),
    "modules_to_save": (r"(^|.*\.)", r"($|\..*)", "match"),
    "layers_pattern": (r"(?:^|.*?\.)", r"\.(?P<idx>\d+)\.", "match"),
    "rank_pattern": (r"(.*\.)?(", ")$", "match"),
    "alpha_pattern": (r"(.*\.)?(", ")$", "match"),
}


def read_fields(path):
    """Read an `adapter_config.json`. Raises ValueError if a field has an incorrect type or an unsupported value."""
    fields = read_object(path)
    if "peft_type" not in fields:
        raise ValueError(f"{path}: peft_type is missing, expected 'LORA'")
    init = fields.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(("pissa", "olora", "corda", "loftq", "lora_ga")):
        remedy = "in PEFT, convert the adapter with save_pretrained(…, path_initial_model_for_weight_conversion=…)"
        raise ValueError(f"{path}: init_lora_weights is {quoted(init)}, which changes the base's weights; {remedy}")
    check_keys(path, fields, foreign_keys()["adapter_config.json"])
    for name, (kind, expected) in TYPES.items():
        value = fields.get(name)
        items = [value] if kind is dict else as_list(value)
        if value is not None and not all(type(item) is kind for item in items):
            raise ValueError(f"{path}: {name} is {quoted(value)}, expected {expected}")
    return fields


def match_fields(path, fields, names):
    """Match all patterns of the configuration against the names of layers.

    Returns
    -------
    dict, (field, pattern) -> {matching name: block number as a str for "layers_pattern", otherwise None}

    Raises
    ------
    ValueError
        If a pattern is not a valid regular expression, or takes too long to match.
    """
    keys = []
    for field in PATTERNS:
        value = fields.get(field)
        # If target_modules is a list, it contains names; a single string is a pattern.
        is_pattern = isinstance(value, (str, dict)) or field in ("modules_to_save", "layers_pattern")
        keys += [(field, pattern) for pattern in as_list(value if value is not None else []) if is_pattern]
    found = match_patterns([(pattern, *PATTERNS[field]) for field, pattern in keys], list(names))
    for (field, pattern), rows in zip_longest(keys, found):
        if rows is None or isinstance(rows, str):
            fault = "takes too long to match" if rows is None else f"is not a valid pattern ({shown(rows)})"
            raise ValueError(f"{path}: {field} has {quoted(pattern)}, which {fault}")
    return dict(zip(keys, found))


def is_target(fields, found, module):
    """Whether the configuration targets a layer of the base; `found` is the result of `match_fields`."""

    def named_by(field, names):  # a string is a pattern for the full name; a list contains names or their suffixes
        if isinstance(names, str):
            return module in found[field, names]
        return any(module == name or module.endswith(f".{name}") for name in names)

    if named_by("exclude_modules", fields.get("exclude_modules") or []):
        return False
    if any(module in found["modules_to_save", name] for name in as_list(fields.get("modules_to_save") or [])):
        return False
    targets = fields["target_modules"]
    if targets == "all-linear":
        return True
    if not named_by("target_modules", targets):
        return False
    layers = fields.get("layers_to_transform")
    if isinstance(targets, str) or module in targets or layers is None or layers == []:
        return True
    matches = [found["layers_pattern", pattern] for pattern in as_list(fields.get("layers_pattern") or [])]
    if not matches:
        default = re.match(r".*?\.[^.]*\.(\d+)\.", module)
        matches = [{module: default[1]}] if default else []
    block = next((blocks[module] for blocks in matches if module in blocks), None)
    return block is not None and int(block) in as_list(layers)


def as_list(value):
    return [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)


def rank_and_scale(fields, found, module):
    """The rank r and the scale s of a layer's adapter, and their source; for `found`, see `is_target`.

    The scale is α/r (rsLoRA: α/√r). The source lists the patterns and defaults used, such as "alpha_pattern q_proj".
    """
    values, sources = [], []
    for field, plain in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
        pattern = fields.get(field) or {}
        key = next((key for key in pattern if module in found[field, key]), None)
        values.append(fields.get(plain, 8) if key is None else pattern[key])
        sources += [f"{field} {key}"] if key is not None else [f"default {plain}"] * (plain not in fields)
    rank, alpha = values
    whole_number("the rank", rank)
    alpha = alpha_number("the alpha", alpha)
    return rank, alpha / (math.sqrt(rank) if fields.get("use_rslora", False) else rank), ", ".join(sources)


def alpha_of(scale, r, rslora):
    """Compute alpha from the scale s: s r or, for rsLoRA, s √r, without trailing digits due to rounding errors."""
    alpha = scale * (math.sqrt(r) if rslora else r)
    short = float(f"{alpha:.12g}")
    return short if math.isclose(short, alpha, rel_tol=1e-15) else alpha
