"""Which amqtt this package mends, checked without importing amqtt; it installs nothing."""

from importlib.util import find_spec
from pathlib import Path

from .errors import BrokerError

# Exactly this one: private methods are overridden, and each override answers a fault of this version.
AMQTT_VERSION = "0.12.1"


def check_amqtt_version() -> None:
    """Raise `BrokerError` unless the amqtt that would be imported is the one that is mended here."""
    found = _beside_the_package() or _from_metadata()
    if found is None:
        raise BrokerError(f"amqtt {AMQTT_VERSION} is not installed")
    if found != AMQTT_VERSION:
        raise BrokerError(f"amqtt {AMQTT_VERSION} is needed, {found} is installed")


def _beside_the_package() -> str | None:
    """Read the version off the one `amqtt-*.dist-info` beside the package: far faster than the metadata."""
    spec = find_spec("amqtt")
    if spec is None or spec.origin is None:
        return None
    found = list(Path(spec.origin).parent.parent.glob("amqtt-*.dist-info"))
    return found[0].name.removeprefix("amqtt-").removesuffix(".dist-info") if len(found) == 1 else None


def _from_metadata() -> str | None:
    from importlib import metadata

    try:
        return metadata.version("amqtt")
    except metadata.PackageNotFoundError:
        return None
