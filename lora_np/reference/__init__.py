"""Reference cases: what a right implementation computes, and whether this one does."""

from .gradcheck import CASES, TOLERANCE, Case, Row, failures, format_rows, gradcheck, rows_to_dicts

__all__ = ["CASES", "TOLERANCE", "Case", "Row", "failures", "format_rows", "gradcheck", "rows_to_dicts"]
