"""Checks of a project's data before anybody learns from it: `tamiz check`.

Each check gives a `Finding`; `check_data` makes them all, `write_page` shows them as one HTML file.
"""

from tamiz.audit.findings import Finding, Severity
from tamiz.audit.page import write_page
from tamiz.audit.report import Report, check_data
from tamiz.audit.suspects import write_suspects

__all__ = ["Finding", "Report", "Severity", "check_data", "write_page", "write_suspects"]
