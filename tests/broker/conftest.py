"""Fixtures of the broker's tests: each broker alone, or a test once for each."""

from collections.abc import Iterator

import pytest

from broker import servers
from harness import in_ci


def _need(name: str) -> None:
    reason = servers.missing(name)
    if reason and in_ci():
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(params=["ours", "stock", "mosquitto"])
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    """Give each of the three brokers in turn; skipped at home where one is missing, a failure in CI."""
    _need(request.param)
    with servers.serve(request.param) as running:
        yield running


@pytest.fixture
def ours() -> Iterator[servers.Server]:
    """Give our broker with its default limits."""
    with servers.serve_ours() as running:
        yield running
