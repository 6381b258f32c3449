"""A report in a real Chromium: it fits, it plays, nothing of an agent's runs and nothing is fetched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import chromium
from chromium import Chromium
from harness import Place, job_id, wait_until
from traces import await_recording

EVIL = "</pre></script><script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)>"


@pytest.fixture
def report(place: Place) -> Path:
    """Give the page of a job whose words are hostile and long."""
    (place.root / "evil").write_text(EVIL + "x" * 400)
    agent = (
        'cat "$EVIL"; "$DJ" publish --event progress --detail "$(cat "$EVIL")"\n'
        'sleep 0.5; "$DJ" publish --event completed'
    )
    done = place.submit(agent, "--prompt", EVIL, "--close", env={"EVIL": str(place.root / "evil")})
    assert done.returncode == 0, done
    await_recording(place, job_id(done.stdout), "alert(1)")
    return Path(place.run("report", "@last").stdout.removesuffix("\n"))


@pytest.fixture
def browser(place: Place) -> Iterator[Chromium]:
    """Give a browser; without one on PATH the test is skipped, and `test_report` is what holds."""
    program = chromium.found()
    if program is None:
        pytest.skip("no Chromium or Chrome on PATH")
    with chromium.started(place, program) as browser:
        yield browser


def test_it_fits_plays_and_is_harmless(browser: Chromium, report: Path) -> None:
    """Narrow and wide, light and dark: no sideways scrolling, colours of the scheme, a player that plays."""
    backgrounds = set()
    for width, scheme in ((360, "light"), (360, "dark"), (1400, "light"), (1400, "dark")):
        browser.show(report, width=width, scheme=scheme)
        wait_until(lambda: browser.evaluate("!!document.querySelector('.ap-player')"), what="the player")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate("document.getElementById('no-player').hidden")
        backgrounds.add((scheme, browser.evaluate("getComputedStyle(document.body).backgroundColor")))
        browser.evaluate("document.querySelector('.ap-playback-button').click()")
        wait_until(lambda: browser.evaluate("!document.querySelector('.ap-overlay-start')"), what="the start")
        wait_until(lambda: "alert(1)" in browser.evaluate("document.querySelector('.ap-term').textContent"))
        assert browser.of("Page.javascriptDialogOpening") == []
        assert [entry["entry"]["text"] for entry in browser.of("Log.entryAdded")] == []
        assert browser.of("Runtime.exceptionThrown") == []
        fetched = {request["request"]["url"] for request in browser.of("Network.requestWillBeSent")}
        assert {url for url in fetched if not url.startswith("data:")} == {report.as_uri()}
    assert len(backgrounds) == 2, "each scheme has one background of its own"
    assert len({colour for _, colour in backgrounds}) == 2


def test_the_policy_stops_what_slipped_through(browser: Chromium, report: Path) -> None:
    """Were a script or a picture of an agent's in the page, the page's own policy would stop it."""
    report.write_text(report.read_text().replace("<main>", f"<main>{EVIL}", 1))
    browser.show(report, width=1400, scheme="light")
    wait_until(lambda: browser.evaluate("!!document.querySelector('.ap-player')"), what="the player")
    assert browser.of("Page.javascriptDialogOpening") == []
    refused = [entry["entry"]["text"] for entry in browser.of("Log.entryAdded")]
    assert any("script" in text for text in refused), refused
    assert any("img-src" in text for text in refused), refused


def test_it_is_accessible(browser: Chromium, report: Path) -> None:
    """Every part has a name, the chart a description, and what scrolls is reached by keyboard."""
    browser.show(report, width=1400, scheme="light")
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]
    }
    assert ("image", "The states of the job over time") in {
        (role.replace("img", "image"), name) for role, name in named
    }
    assert {"Prompt", "Timeline", "Session", "Changes", "Checks", "Events"} <= {
        name for role, name in named if role == "heading"
    }
    unreachable = browser.evaluate(
        "[...document.querySelectorAll('pre, .wide')].filter(each => each.scrollWidth > each.clientWidth + 1"
        " && each.tabIndex < 0 && !each.querySelector('#player')).length"
    )
    assert unreachable == 0
