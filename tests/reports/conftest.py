from __future__ import annotations

import pytest

from clipvet.types import Report, ScanReport
from tests.reports.report_cases import CASES
from tests.reports.scan_cases import CASES as SCAN_CASES


@pytest.fixture(params=CASES)
def report(request: pytest.FixtureRequest) -> Report:
    """Every case in turn."""
    return CASES[request.param]()


@pytest.fixture(params=SCAN_CASES)
def scan(request: pytest.FixtureRequest) -> ScanReport:
    """Every case of a scan in turn."""
    return SCAN_CASES[request.param]()
