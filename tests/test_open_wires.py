"""When an owner's wires start: real embedded brokers, and the moments at which they may not yet."""

from collections.abc import Iterator
from threading import Event

import pytest

from delegate_job import open_wires
from delegate_job.mqtt import Address
from delegate_job.open_wires import OpenWires
from delegate_job.wire import EmbeddedWire, ExternalWire, Hears
from harness import PATIENCE, free_port


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


def test_a_broker_waits_for_an_agent_that_starts(
    wires: OpenWires, heard: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the machine to the agent, and starts when that has started."""
    monkeypatch.setattr(open_wires, "HELD_BACK", 60.0)
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


class Counted(ExternalWire):
    """An external broker's wire that counts how often it is started, and connects to nobody."""

    def __init__(self) -> None:
        super().__init__(Address(host="127.0.0.1", port=free_port()))
        self.starts = 0

    def start_once(self, _hears: Hears) -> None:
        """Count."""
        self.starts += 1


def test_only_our_own_broker_waits(wires: OpenWires, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wire to another's costs the agent nothing: it is started at once, and once."""
    monkeypatch.setattr(open_wires, "HELD_BACK", 60.0)
    external = Counted()
    wires.add(external)
    for _ in range(3):
        wires.start(is_agent_starting=lambda: True)
    assert external.starts == 1


def test_an_end_before_the_start_is_told(wires: OpenWires) -> None:
    """A job that is over before its wire was started has it started for its last words."""
    external = Counted()
    wires.add(external)
    wires.start_for_the_end(external)
    assert external.starts == 1
    wires.let_go(external)
    wires.start(is_agent_starting=lambda: False)
    assert external.starts == 1
