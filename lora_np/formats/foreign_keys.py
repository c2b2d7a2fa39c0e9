"""The inventory of keys in other programs' files: what this package does with each of them; see `foreign_keys.txt`."""

import json
from functools import cache
from pathlib import Path

from ..checked import quoted

ACTIONS = ("read", "written", "ignored", "default")


@cache
def foreign_keys():
    """Read the inventory.

    Returns
    -------
    dict, section -> {key: one of `ACTIONS`, or a tuple of the supported values, the first of which is the default}
    """
    sections = {}
    for line in Path(__file__).with_suffix(".txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            keys = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            names, action, _ = (part.strip() for part in line.split("|"))
            values = action if action in ACTIONS else tuple(map(json.loads, action.split(" or ")))
            keys |= dict.fromkeys(names.split(), values)
    return sections


def keys_with(keys, *actions):
    """The names of keys with one of these actions; `tuple` stands for supported values."""
    return [name for name, action in keys.items() if action in actions or type(action) in actions]


def check_keys(path, fields, keys, prefix=""):
    """Raise ValueError for a key with an unsupported value, which changes what a model or an adapter computes.

    Parameters
    ----------
    path : of the file, for the message
    fields : dict of its fields
    keys : a section of the inventory
    prefix : prefix of the keys in the file
    """
    for name in keys_with(keys, tuple):
        values, value = keys[name], fields.get(prefix + name, keys[name][0])
        is_plain = value is None or isinstance(value, (bool, int, float, str, list, dict))  # not an array
        if not is_plain or not any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values):
            expected = " or ".join(map(repr, values))
            raise ValueError(f"{path}: {prefix}{name} is {quoted(value)}, expected {expected}")
