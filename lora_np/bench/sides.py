"""The table of sides: what each is called, what it needs, which kinds of work it does, and how it is made."""

from typing import NamedTuple

from . import gpt2_peer, jax_peer, ours, peak, torch_peer
from .rungs import GENERATED_ROWS, WORKS

STEPS = tuple(work for work in WORKS if work not in GENERATED_ROWS)  # all but generation
OURS = "lora_np"


class Peer(NamedTuple):
    packages: tuple[str, ...]
    works: tuple[str, ...]
    text: str


PEERS = {
    "torch": Peer(("torch", "peft", "transformers"), tuple(WORKS), "PyTorch eager, PEFT, transformers' generate"),
    "compile": Peer(("torch", "peft"), STEPS, "the same PyTorch module under torch.compile"),
    "jax": Peer(("jax",), STEPS, "JAX, each step one jitted function"),
}


def make_side(name, case, threads):
    """The side of that name, as a context manager that yields a Side.

    Parameters
    ----------
    name : "lora_np", a key of PEERS, or "peak" (which does one thing, whatever the case)
    case : Case
    threads : int
    """
    if name == "peak":
        return peak.make_side(threads)
    if name == OURS:
        return ours.make_side(case, threads)
    if name == "jax":
        return jax_peer.make_side(case, threads)
    if case.n_new:
        return gpt2_peer.make_side(case, threads)
    return torch_peer.make_side(case, threads, compiled=name == "compile")


def parse_peers(texts):
    """The peers of a command line: names, also several with commas; None for those that are installed.

    Returns
    -------
    peers : list of keys of PEERS
    absent : list of the others whose packages are not installed, each with the reason; empty where peers
        were asked for by name

    Raises
    ------
    ValueError
        For an unknown name, or a peer that was asked for and is not installed.
    """
    if texts is None:
        lacks = {name: missing_packages(peer) for name, peer in PEERS.items()}
        absent = [f"{name} (not installed: {', '.join(lack)})" for name, lack in lacks.items() if lack]
        return [name for name, lack in lacks.items() if not lack], absent
    names = [name for text in texts for name in text.split(",") if name]
    for name in names:
        if name not in PEERS:
            raise ValueError(f"peers: got {name!r}, expected some of {', '.join(PEERS)}")
        lack = missing_packages(PEERS[name])
        if lack:
            raise ValueError(
                f"peers: {name} needs the package {', '.join(lack)}, which is not installed; "
                'install it with: pip install "lora_np[bench]"'
            )
    return list(dict.fromkeys(names)), []


def missing_packages(peer):
    """Those of the peer's packages that are not installed, found without importing them."""
    from importlib.util import find_spec

    return [package for package in peer.packages if find_spec(package) is None]
