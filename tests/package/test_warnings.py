"""Whoever runs the tests learns of a deprecation: ``filterwarnings`` in pyproject.toml."""

import warnings

import pytest


@pytest.mark.parametrize("kind", [DeprecationWarning, FutureWarning, PendingDeprecationWarning, ResourceWarning, UserWarning])
def test_a_warning_is_an_error(kind: type[Warning]) -> None:
    with pytest.raises(kind, match="said by a test"):
        warnings.warn("said by a test", kind, stacklevel=1)
