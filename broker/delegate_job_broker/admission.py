"""From an accepted connection to an accepted client, or to a refusal; it changes no state of the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqtt.adapters import BufferReader
from amqtt.errors import AMQTTError
from amqtt.mqtt.packet import CONNECT, MQTTFixedHeader

from . import packets
from .connection import Connection, will_of
from .packets import Malformed
from .topics import is_topic

if TYPE_CHECKING:
    from amqtt.broker import BrokerContext
    from amqtt.plugins.manager import PluginManager
    from amqtt.session import Session

    from .access import AccessList, Grant
    from .adapters import ChunkReader, ClosingWriter
    from .limits import Limits

_HIGHEST_QOS = 2


class Refused(AMQTTError):  # noqa: N818 - an outcome rather than an error; it never leaves the package
    """The client is told why, by a CONNACK, and its connection closed."""

    def __init__(self, connack: bytes) -> None:
        super().__init__(f"refused: {connack.hex()}")
        self.connack = connack


async def read_connect(
    reader: ChunkReader, writer: ClosingWriter, plugins: PluginManager[BrokerContext]
) -> tuple[Connection, Session]:
    """Read the first packet, which must be a CONNECT of MQTT 3.1.1.

    S10: amqtt 0.12.1 leaves MQTT 5 clients hanging and 3.1 clients without an answer.
    """
    while (packet := reader.packets.next()) is None:
        data = await reader.chunk()
        if not data:
            raise Malformed("closed before CONNECT")
        reader.packets.feed(data)
    first, body = packet
    if first != packets.CONNECT:
        raise Malformed(f"packet 0x{first:02x} before CONNECT")
    if connack := packets.refusal_of_version(body):
        raise Refused(connack)
    header = MQTTFixedHeader(CONNECT, 0, len(body)).to_bytes()
    handler, session = await Connection.init_from_connect(BufferReader(header + body), writer, plugins)
    assert isinstance(handler, Connection)  # noqa: S101 - for the type checker: a class method of ours
    return handler, session


def judge(session: Session, access: AccessList, limits: Limits) -> Grant:
    """Give the grant of a client whose token and will are right; raise `Refused`.

    B6 and B7: amqtt 0.12.1 ends the victim's session before it authenticates and never looks at the will.
    """
    grant = access.authenticate(session.username, session.password)
    # Kept by nobody: a session is printed and pickled more easily than one would like.
    session.password = None
    if grant is None or not _may_leave_will(session, grant, limits):
        raise Refused(packets.REFUSED_NOT_AUTHORIZED)
    return grant


def _may_leave_will(session: Session, grant: Grant, limits: Limits) -> bool:
    will = will_of(session)
    if will is None:
        return True
    if (session.will_qos or 0) > _HIGHEST_QOS:
        return False
    return is_topic(will.topic, limits.topic_levels) and grant.may_publish(will.topic)
