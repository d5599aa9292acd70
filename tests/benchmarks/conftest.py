"""A result, as the suite writes it."""

from __future__ import annotations

from typing import Any

import pytest
from made_results import make_result


@pytest.fixture
def result() -> dict[str, Any]:
    return make_result()
