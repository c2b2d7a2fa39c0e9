"""Reference cases for ports to other languages, a checker for a port's outputs, and the package's gradient check."""

from .check import check, compare_exports, exit_code, format_result, format_summary, format_vectors, to_dicts
from .gradcheck import TOLERANCE, Row, failures, format_rows, gradcheck, rows_to_dicts
from .gradcheck_cases import CASES, Case
from .manifest import MANIFEST, VECTORS, export, load_case, load_manifest

__all__ = [
    *("check", "compare_exports", "exit_code", "format_result", "format_summary", "format_vectors", "to_dicts"),
    *("TOLERANCE", "Row", "failures", "format_rows", "gradcheck", "rows_to_dicts", "CASES", "Case"),
    *("MANIFEST", "VECTORS", "export", "load_case", "load_manifest"),
]
