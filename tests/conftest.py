"""What holds for every test."""

from __future__ import annotations

import pytest

# The contracts are part of the package, and their failures must be as readable as those of the tests.
pytest.register_assert_rewrite("pypicloud.testing", "support")
