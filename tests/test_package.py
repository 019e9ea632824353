"""The package's front door."""

import subprocess
import sys

import pytest

import rewardsds


def test_every_name_that_is_promised_can_be_imported():
    for name in rewardsds.__all__:
        assert getattr(rewardsds, name).__name__ == name
        assert name in dir(rewardsds)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        rewardsds.nonsense  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, rewardsds; print(*({'torch', 'diffusers', 'transformers', 'numba'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
