"""Compare the speed of lora_np with the speed of PyTorch and JAX on the same work."""

from .backends import PEERS, parse_peers
from .case import DEFAULT_WORKS, RUNGS, WORKS, Rung, flops, parse_rung
from .report import format_tables, to_dicts
from .rounds import bench

__all__ = ["DEFAULT_WORKS", "PEERS", "RUNGS", "WORKS", "Rung", "bench", "flops", "format_tables", "parse_peers"]
__all__ += ["parse_rung", "to_dicts"]
