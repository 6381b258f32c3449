"""What stands in for parts of the standard library in a start says what they say."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegate_job import bare

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)

LEAN = """
import sys
sys.path.insert(0, sys.argv[1])
for missing in sys.argv[2:]:
    sys.modules[missing] = None
from delegate_job.bare import loads, sha256, signal
assert loads('{"argv": ["a", "\\\\udcff\\\\n"], "limits": {"umask": 18}}') == {
    "argv": ["a", "\\udcff\\n"], "limits": {"umask": 18}
}
assert int(signal.SIGTERM) == 15 and 15 in signal.valid_signals()
assert sha256(b"x").startswith("2d711642b726")
print(*{"enum", "re", "json", "hashlib", "signal"} & set(sys.modules))
"""


@given(JSON, st.sampled_from([None, 1]))
def test_json_is_read_as_json_reads_it(value: object, indent: int | None) -> None:
    """Every value comes out as it went in, in one line or in many."""
    text = json.dumps(value, indent=indent)
    assert bare.loads(text) == json.loads(text)


@pytest.mark.parametrize("text", ["", "{", "[1,]", "1 2", '{"a" 1}', '{"a": "\n"}', "nul", '"\\ud'])
def test_what_is_no_json_is_a_value_error_that_says_where(text: str) -> None:
    """A damaged file gives the same error as with `json`."""
    with pytest.raises(ValueError) as expected:
        json.loads(text)
    with pytest.raises(ValueError) as error:
        bare.loads(text)
    assert str(error.value) == str(expected.value)


@given(st.binary())
def test_sha256_is_sha256(data: bytes) -> None:
    """Whichever module it comes from."""
    assert bare.sha256(data) == hashlib.sha256(data).hexdigest()


def lean(repository: Path, *missing: str) -> str:
    """Run it all in a bare interpreter without the modules `missing`; return what it imported after all."""
    argv = [sys.executable, "-I", "-S", "-c", LEAN, str(repository), *missing]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_nothing_heavy_is_imported(repository: Path) -> None:
    """Neither enumerations nor regular expressions nor OpenSSL."""
    assert lean(repository) == ""


def test_an_interpreter_without_these_parts_does_it_with_the_public_ones(repository: Path) -> None:
    """Where CPython's inner modules are missing or renamed, nothing changes but the time."""
    imported = lean(repository, "_json", "_sha2", "_sha256")
    assert {"json", "hashlib"} <= set(imported.split())


@given(JSON)
def test_json_is_written_as_json_writes_it(value: object) -> None:
    """Every value, short, with all characters as they are."""
    short = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    assert bare.dumps(value) == short


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: {2, 3}}, [b"x"], {(): 1}], ids=repr)
def test_what_json_cannot_write_is_the_same_error(value: object) -> None:
    """NaN, foreign types and keys are refused as `json` refuses them."""
    with pytest.raises((TypeError, ValueError)) as expected:
        json.dumps(value, allow_nan=False)
    with pytest.raises(type(expected.value)):
        bare.dumps(value)


def test_a_cycle_is_a_value_error() -> None:
    """As with `json`, and no crash."""
    value: list[object] = []
    value.append(value)
    with pytest.raises((ValueError, RecursionError)):
        bare.dumps(value)
