"""A warning fails the test that causes it, unless `filterwarnings` in pyproject.toml lists it."""

import warnings

import pytest


@pytest.mark.parametrize("kind", [DeprecationWarning, FutureWarning, PendingDeprecationWarning, ResourceWarning, UserWarning])
def test_a_warning_is_an_error(kind: type[Warning]) -> None:
    with pytest.raises(kind, match="said by a test"):
        warnings.warn("said by a test", kind, stacklevel=1)
