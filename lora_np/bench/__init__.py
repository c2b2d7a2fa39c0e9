"""The yardstick: lora_np's time beside that of PyTorch and JAX, on the same work."""

from .case import DEFAULT_WORKS, RUNGS, WORKS, Rung, flops, parse_rung
from .report import format_tables, to_dicts
from .sides import PEERS, parse_peers
from .turns import bench
