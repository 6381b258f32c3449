"""An embedded MQTT 3.1.1 broker: amqtt 0.12.1, mended. It knows bytes, topics and users, and no jobs.

```python
access = AccessList()
access.grant("reporter", Grant(token, publish=("plant/1/#",)))
access.grant("screen", Grant(other_token, subscribe=("plant/#",)))
with BrokerThread([listen_on_loopback()], access) as broker:
    print(broker.port)
```
"""

# Not from typing: that import alone takes longer than this package may. Type checkers read it as true.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from .access import AccessList, Grant
    from .errors import BrokerError
    from .limits import Limits
    from .listeners import listen_on_loopback, listen_on_unix, remove_unix_socket, unix_socket_path
    from .thread import BrokerThread
    from .version import AMQTT_VERSION, check_amqtt_version

__all__ = [
    "AMQTT_VERSION",
    "AccessList",
    "BrokerError",
    "BrokerThread",
    "Grant",
    "Limits",
    "check_amqtt_version",
    "listen_on_loopback",
    "listen_on_unix",
    "remove_unix_socket",
    "unix_socket_path",
]

# Imported when first asked for: a command that never hosts a broker must not pay for one.
_HOMES = {
    "AMQTT_VERSION": "version",
    "AccessList": "access",
    "BrokerError": "errors",
    "BrokerThread": "thread",
    "Grant": "access",
    "Limits": "limits",
    "check_amqtt_version": "version",
    "listen_on_loopback": "listeners",
    "listen_on_unix": "listeners",
    "remove_unix_socket": "listeners",
    "unix_socket_path": "listeners",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{home}", __name__), name)
