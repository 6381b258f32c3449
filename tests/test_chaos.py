"""What is promised when anything is killed at any moment: nothing lost or doubled, nobody stuck."""

import pytest

from harness import Place
from havoc import Havoc


@pytest.mark.parametrize("seed", [101, 102, 103])
def test_twenty_kills_lose_nothing(place: Place, seed: int) -> None:
    """Every report that was accepted is in the log once, every job ends rightly, nothing is left behind."""
    havoc = Havoc(place, seed)
    havoc.run(20)
    assert havoc.faults() == []
