"""Read `foreign_keys.txt`, an inventory of what this package does with each key in other programs' files."""

import json
from functools import cache
from pathlib import Path

from ..checked import quoted

ACTIONS = ("read", "required", "optional", "written", "ignored", "default")


def inventory():
    """Yield (section, keys, action, our fields) for each line of the inventory; the list of our fields may be empty."""
    sections = []
    for line in Path(__file__).with_suffix(".txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            file, _, names = line.strip("[]").partition(" of ")
            sections = [f"{file} of {name}" for name in names.split(", ")] if names else [file]
        elif line and not line.startswith("#"):
            keys, action, _ = line.split(" |")
            action, _, ours = action.strip().partition(": ")
            yield from ((section, keys.split(), action, ours.split()) for section in sections)


@cache
def foreign_keys():
    """Look up what this package does with each key in other programs' files.

    Returns
    -------
    dict, section -> {key: one of `ACTIONS`, or a tuple of the supported values, the first of which is the default}
    """
    sections = {}
    for section, keys, action, _ in inventory():
        values = action if action in ACTIONS else tuple(map(json.loads, action.split(" or ")))
        sections.setdefault(section, {}).update(dict.fromkeys(keys, values))
    return sections


@cache
def our_fields(section, *actions):
    """A dict, key -> field of our configuration, of a section's keys that have one of these actions (default: any)."""
    lines = [line for line in inventory() if line[0] == section and line[2] in (actions or ACTIONS)]
    return {key: field for _, keys, _, fields in lines for key, field in zip(keys, fields)}


def values_in(section, config, *actions):
    """A configuration's values, keyed by field name in a section's files; see also `our_fields`."""
    return {theirs: getattr(config, ours) for theirs, ours in our_fields(section, *actions).items()}


def keys_with(keys, *actions):
    """The keys that have one of these actions; the action `tuple` means any list of supported values."""
    return [name for name, action in keys.items() if action in actions or type(action) in actions]


def check_keys(path, fields, keys, prefix=""):
    """Raise ValueError for a key whose unsupported value would change what a model or an adapter computes.

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
