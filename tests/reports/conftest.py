from __future__ import annotations

import pytest

from clipvet.types import Report
from tests.reports.report_cases import CASES


@pytest.fixture(params=CASES)
def report(request: pytest.FixtureRequest) -> Report:
    """Every case in turn."""
    return CASES[request.param]()
