"""Reference cases: what a right implementation computes, and whether this one does."""

from .gradcheck import TOLERANCE, Row, failures, format_rows, gradcheck, rows_to_dicts
from .gradcheck_cases import CASES, Case

__all__ = ["CASES", "TOLERANCE", "Case", "Row", "failures", "format_rows", "gradcheck", "rows_to_dicts"]
