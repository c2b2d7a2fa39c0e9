"""The table of sides: what each is called, what it needs, which kinds of work it does, and how it is made."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..checked import one_of
from . import jax_peer, ours, torch_peer
from .rungs import GENERATED_ROWS, WORKS

STEPS = tuple(work for work in WORKS if work not in GENERATED_ROWS)  # all but generation
OURS = "lora_np"


class Peer(NamedTuple):
    packages: tuple[str, ...]
    works: tuple[str, ...]
    make_side: Callable  # of a case and the number of threads


PEERS = {
    "torch": Peer(("torch", "peft", "transformers"), tuple(WORKS), torch_peer.make_side),
    "compile": Peer(("torch", "peft"), STEPS, partial(torch_peer.make_side, compiled=True)),
    "jax": Peer(("jax",), STEPS, jax_peer.make_side),
}


def make_side(name, case, threads):
    """The side of that name, as a context manager that yields a Side.

    Parameters
    ----------
    name : "lora_np", a key of PEERS, or "peak"
    case : Case; None for "peak"
    threads : int
    """
    if name in (OURS, "peak"):
        return ours.make_side(case, threads)
    return nullcontext(PEERS[name].make_side(case, threads))


def checkout_of(name):
    """The folder of a peer that is another checkout of lora_np, named like old=/path/to/it; None for other peers."""
    label, equals, folder = name.partition("=")
    return Path(folder) if label and equals else None


def works_of(name):
    """The kinds of work that a peer does."""
    return tuple(WORKS) if checkout_of(name) else PEERS[name].works


def check_peer(name):
    """Raise ValueError unless the peer is an installed one of PEERS, or NAME=DIR with a checkout of lora_np in DIR."""
    folder = checkout_of(name)
    if folder is not None:
        if not (folder / "lora_np" / "bench" / "worker.py").is_file():
            raise ValueError(f"peers: got {name!r}, expected a checkout of lora_np in the folder {folder}")
        return
    missing = missing_packages(PEERS[one_of("peers", name, [*PEERS, "NAME=DIR"])])
    if missing:
        raise ValueError(
            f"peers: {name} needs the package {', '.join(missing)}, which is not installed; "
            'install it with: pip install "lora_np[bench]"'
        )


def missing_packages(peer):
    """The peer's packages that are not installed, found without importing them."""
    return [package for package in peer.packages if find_spec(package) is None]


def parse_peers(texts):
    """The peers of a command line: names, or several with commas; None for all that are installed.

    Returns
    -------
    peers : list of keys of PEERS, or NAME=DIR for another checkout of lora_np
    absent : list of those that are not installed, each with the reason; empty if peers were named

    Raises
    ------
    ValueError
        For an unknown name, or a named peer that is not installed.
    """
    if texts is None:
        missing = {name: missing_packages(peer) for name, peer in PEERS.items()}
        absent = [f"{name} (not installed: {', '.join(lacks)})" for name, lacks in missing.items() if lacks]
        return [name for name, lacks in missing.items() if not lacks], absent
    names = dict.fromkeys(name for text in texts for name in text.split(",") if name)
    for name in names:
        check_peer(name)
    return list(names), []
