"""Reference cases for ports in any language, a checker for their outputs, and the gradient check of this package."""

from .check import check, compare_exports, exit_code, format_result, format_summary, to_dicts
from .export import export
from .gradcheck import TOLERANCE, Row, failures, format_rows, gradcheck, rows_to_dicts
from .gradcheck_cases import CASES, Case
from .manifest import MANIFEST, VECTORS, load_case, load_manifest

__all__ = [
    "CASES",
    "MANIFEST",
    "TOLERANCE",
    "VECTORS",
    "Case",
    "Row",
    "check",
    "compare_exports",
    "exit_code",
    "export",
    "failures",
    "format_result",
    "format_rows",
    "format_summary",
    "gradcheck",
    "load_case",
    "load_manifest",
    "rows_to_dicts",
    "to_dicts",
]
