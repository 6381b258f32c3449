"""When an owner's wires start: real embedded brokers, and the moments at which they may not yet."""

from collections.abc import Iterator
from threading import Event

import pytest

from delegate_job import open_wires
from delegate_job.open_wires import OpenWires
from delegate_job.wire import EmbeddedWire, Hears
from harness import PATIENCE


@pytest.fixture
def heard() -> Event:
    """Give what is set once a wire was started and has connected."""
    return Event()


@pytest.fixture
def wires(heard: Event) -> Iterator[OpenWires]:
    """Give the wires of an owner with one embedded broker that was not started."""
    opened = OpenWires(
        Hears(
            report=lambda *_: None,
            change=lambda connected, _: heard.set() if connected else None,
            caught_up=lambda _: None,
        )
    )
    opened.add(EmbeddedWire())
    yield opened
    opened.stop()


def test_a_broker_waits_for_an_agent_that_starts(wires: OpenWires, heard: Event) -> None:
    """It leaves the machine to the agent, and starts when that has started."""
    wires.start(is_agent_starting=lambda: True)
    assert not heard.wait(0.3)
    wires.start(is_agent_starting=lambda: False)
    assert heard.wait(PATIENCE)


def test_a_broker_does_not_wait_for_long(
    wires: OpenWires, heard: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that never tells of its start keeps no broker waiting."""
    monkeypatch.setattr(open_wires, "HELD_BACK", 0.0)
    wires.start(is_agent_starting=lambda: True)
    assert heard.wait(PATIENCE)


def test_a_wire_that_comes_later_is_started_too(wires: OpenWires, heard: Event) -> None:
    """Each is started once, whenever it came."""
    wires.start(is_agent_starting=lambda: False)
    assert heard.wait(PATIENCE)
    heard.clear()
    second = EmbeddedWire()
    wires.add(second)
    wires.add(second)
    wires.start(is_agent_starting=lambda: False)
    assert heard.wait(PATIENCE)
