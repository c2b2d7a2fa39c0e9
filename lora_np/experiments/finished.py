"""The results of a sweep that is still going, on disk: what is in the file need not be run again."""

import hashlib
import json
import os
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import __version__
from ..formats import PRETRAINED

PACKAGE = Path(__file__).parent.parent


def run_key(run):
    """All that a run's result depends on, as one text: its settings, the base, the code.

    Parameters
    ----------
    run : dataclass of plain values
    """
    return json.dumps({"run": asdict(run), **made_with()}, sort_keys=True)


@lru_cache(maxsize=1)
def made_with():
    """What all runs depend on: versions, and digests of the base's files and of the package's source.

    A package under work changes without its version; a run of other code must not pass for one of this.
    """
    return {
        "lora_np": __version__,
        "numpy": np.__version__,
        "base": base_digest(),
        "source": digest(sorted(PACKAGE.rglob("*.py"))),
    }


def base_digest():
    """What tells the shipped base from another."""
    return digest([PRETRAINED / name for name in ("config.json", "model.safetensors", "tokenizer.json")])


def digest(paths):
    """SHA-256 of some files' contents, in order."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def read_finished(path):
    """The results in the file.

    Returns
    -------
    dict, `run_key` -> result; empty if there is no file. A line that a kill cut off is left out.
    """
    found = {}
    for line in Path(path).read_bytes().split(b"\n") if Path(path).exists() else ():
        try:
            entry = json.loads(line)
            found[entry["key"]] = entry["result"]
        except (ValueError, TypeError, KeyError):
            continue
    return found


def add_finished(path, key, result):
    """Append one result, and have it on the disk before going on.

    Parameters
    ----------
    path : the file; it and its folder are made if they are not there
    key : str, from `run_key`
    result : plain numbers, lists and dicts
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"key": key, "result": result})
    with open(path, "ab") as file:
        # A line break in front too: the last line may have been cut off, and would swallow this one.
        file.write(b"\n" + line.encode("utf-8") + b"\n")
        file.flush()
        os.fsync(file.fileno())
