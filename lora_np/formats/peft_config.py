"""The rules of PEFT's `adapter_config.json`: which layers it targets, their ranks and scales.

They follow PEFT (peft.tuners.tuners_utils.check_target_module_exists, peft.utils.other.get_pattern_key), with its
defaults for missing fields.
"""

import math
import re
import warnings

from .checkpoint import read_object

# Fields that change what the adapter computes in ways that we do not support; they must be off.
OFF = """lora_bias layer_replication use_qalora trainable_token_indices alora_invocation_tokens
target_parameters arrow_config kasa_config use_bdlora monteclora_config""".split()
VALUES = {  # of fields that may only have these values; the first is PEFT's default
    "peft_type": ("LORA",),
    "bias": ("none",),
    "fan_in_fan_out": (False, True),
    "use_rslora": (False, True),
    "use_dora": (False, True),
    # Initial values of A and B do not matter after training, but other inits also change the base.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
TYPES = {  # of fields that may be missing or null: the type of the value, or of each in a list, and in words
    "rank_pattern": (dict, "an object of layer -> number"),
    "alpha_pattern": (dict, "an object of layer -> number"),
    "target_modules": (str, "a text or a list of texts"),
    "exclude_modules": (str, "a text or a list of texts"),
    "layers_pattern": (str, "a text or a list of texts"),
    "layers_to_transform": (int, "a whole number or a list of them"),
}
READ = {*OFF, *VALUES, *TYPES, "r", "lora_alpha", "lora_dropout", "modules_to_save", "task_type"}
# Fields of PEFT that have no effect here. They are saved again, without a warning.
KNOWN = """auto_mapping base_model_name_or_path corda_config ensure_weight_tying eva_config inference_mode loftq_config
lora_ga_config megatron_config megatron_core peft_version qalora_group_size revision velora_config""".split()
# Matching time grows like length ** repeats and alternatives ** groups, so the numbers of these are limited.
MOST, MOST_CHARACTERS = {r"[*+?{]": 3, r"\(": 2, r"\|": 20}, 300
INVOLVED = re.compile(r"\)[*+?{]|\(\?|\\[1-9]")  # a repeated or special group, or a back-reference


def read_fields(path):
    """The fields of the file. Raises ValueError for one of a wrong type, or that we do not support."""
    fields = read_object(path)

    def refuse(name, expected):
        raise ValueError(f"{path}: {name} is {fields[name]!r}, expected {expected}")

    if "peft_type" not in fields:
        raise ValueError(f"{path}: peft_type is missing, expected 'LORA'")
    for name, values in VALUES.items():
        got = fields.get(name, values[0])
        if not any(got is value or (isinstance(value, str) and got == value) for value in values):
            refuse(name, " or ".join(map(repr, values)))
    for name in OFF:
        if fields.get(name):
            refuse(name, "none: it changes what the adapter computes")
    for name, (kind, expected) in TYPES.items():
        value = fields.get(name)
        if value is None:
            continue
        items = [value] if kind is dict else as_list(value)
        if not all(type(item) is kind for item in items):
            refuse(name, expected)
        is_pattern = isinstance(value, (str, dict)) or name == "layers_pattern"
        for pattern in (value if kind is dict else items) if is_pattern else ():
            check_pattern(path, name, pattern)
    return fields


def check_pattern(path, field, pattern):
    """Raise ValueError for a text that is not a regular expression, or that could take very long to match."""
    bare = pattern.replace("(?:", "(")
    too_many = any(len(re.findall(token, bare)) > most for token, most in MOST.items())
    if too_many or len(bare) > MOST_CHARACTERS or INVOLVED.search(bare):
        raise ValueError(f"{path}: {field} has the pattern {pattern[:80]!r}, which is too complex to match safely")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python warns about syntax that a later version reads differently
            re.compile(pattern)
            re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, ValueError, OverflowError, RecursionError, Warning) as error:
        raise ValueError(f"{path}: {field} has {pattern!r}, which is not a pattern ({error})") from None


def is_target(fields, module):
    """Whether the configuration targets a layer of the base. Without target_modules, it targets every layer."""
    if named_by(fields.get("exclude_modules"), module):
        return False
    targets = fields.get("target_modules")
    if targets is None or targets == "all-linear":
        return True
    if not named_by(targets, module):
        return False
    layers = fields.get("layers_to_transform")
    if isinstance(targets, str) or module in targets or layers is None or layers == []:
        return True
    patterns = fields.get("layers_pattern") or []
    numbered = [r".*?\.[^.]*"] if not patterns else [rf"(?:^|.*?\.)(?:{p})" for p in as_list(patterns)]
    match = next((m for pattern in numbered if (m := re.match(rf"{pattern}\.(?P<block>\d+)\.", module))), None)
    return match is not None and int(match["block"]) in as_list(layers)


def named_by(names, module):
    """A text is a pattern for the whole name; a list has names, or ends of names."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names or ())


def as_list(value):
    return value if isinstance(value, list) else [value]


def rank_and_scale(path, fields, module):
    """The rank r of a layer's adapter and its scale s, α/r or for rsLoRA α/√r."""

    def pick(pattern, default):
        keys = (fields.get(pattern) or {}).items()
        return next((value for key, value in keys if re.match(rf"(.*\.)?({key})$", module)), default)

    rank, alpha = pick("rank_pattern", fields.get("r", 8)), pick("alpha_pattern", fields.get("lora_alpha", 8))
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"{path}: the rank of {module} is {rank!r}, expected a whole number of at least 1")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) < 1e30:
        raise ValueError(f"{path}: the alpha of {module} is {alpha!r}, expected a finite number")
    return rank, alpha / (math.sqrt(rank) if fields.get("use_rslora", False) else rank)


def alpha_of(scale, r, rslora):
    """The alpha of a scale, s r or for rsLoRA s √r; a short decimal if it differs only by rounding."""
    alpha = scale * (math.sqrt(r) if rslora else r)
    short = float(f"{alpha:.12g}")
    return short if math.isclose(short, alpha, rel_tol=1e-15) else alpha
