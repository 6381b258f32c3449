"""From an accepted connection to an accepted client, or to a refusal; it changes no state of the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqtt.errors import AMQTTError
from amqtt.session import Session
from amqtt.utils import gen_client_id
from typing_extensions import override

from . import packets
from .packets import Connect, Malformed
from .topics import is_topic

if TYPE_CHECKING:
    from .access import AccessList, Grant
    from .adapters import ChunkReader
    from .limits import Limits


class Refused(AMQTTError):  # noqa: N818 - an outcome rather than an error; it never leaves the package
    """The client is told why, by a CONNACK, and its connection closed."""

    def __init__(self, connack: bytes) -> None:
        super().__init__(f"refused: {connack.hex()}")
        self.connack = connack


class ConnectedSession(Session):
    """amqtt's session of a client that was accepted: it is connected, and gone when it is not.

    The state machine of amqtt's own costs 0.12 ms and 23 KB a client (0.12.1, transitions 0.9.3) to say that.
    """

    class _Connected:
        state = "connected"

        @staticmethod
        def is_connected() -> bool:
            return True

    @override
    def _init_states(self) -> None:
        self.transitions = self._Connected()  # type: ignore[assignment] # has what amqtt asks of it


async def read_connect(reader: ChunkReader) -> Connect:
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
    return packets.read_connect(body)


def judge(connect: Connect, access: AccessList, limits: Limits) -> Grant:
    """Give the grant of a client whose token and will are right; raise `Refused`.

    B6 and B7: amqtt 0.12.1 ends the victim's session before it authenticates and never looks at the will.
    """
    if not connect.client_id and not connect.clean:
        raise Refused(packets.REFUSED_IDENTIFIER)  # [MQTT-3.1.3-8]
    grant = access.authenticate(connect.user, connect.token)
    if grant is None or not _may_leave_will(connect, grant, limits):
        raise Refused(packets.REFUSED_NOT_AUTHORIZED)
    return grant


def _may_leave_will(connect: Connect, grant: Grant, limits: Limits) -> bool:
    will = connect.will
    return will is None or (is_topic(will.topic, limits.topic_levels) and grant.may_publish(will.topic))


def session_of(connect: Connect) -> Session:
    """Give amqtt's session, without the token: nobody needs it any more."""
    session = ConnectedSession()
    session.client_id = connect.client_id or gen_client_id()
    session.clean_session = True
    session.username = connect.user
    session.keep_alive = connect.keep_alive
    return session
