"""What one broker gives away at most; it holds the numbers and enforces none of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one broker. How each ends is in docs/broker.md; nothing here grows without one.

    Bytes are bytes, seconds are seconds. `unlimited` grants are exempt from the rate, from
    `retained_per_user` and from `subscriptions`, never from what protects the process.
    """

    packet_bytes: int = 1 << 20  # a larger packet ends its connection
    connect_bytes: int = 64 << 10  # the same, before the client has shown its token
    connect_seconds: float = 10.0  # from accept to a complete CONNECT
    pending: int = 2048  # connections that have not sent CONNECT; the oldest is cut
    connections: int = 4096  # clients at once; the next is refused with return code 3
    keepalive_factor: float = 1.5  # of the client's keep alive [MQTT-3.1.2-24]
    unsent_bytes: int = 32 << 20  # queued for one client that does not read; it is cut
    inflight: int = 1000  # QoS 1 messages sent to one client and not acknowledged; the rest wait
    subscriptions: int = 1000  # filters of one client; the next is refused with 0x80
    topic_levels: int = 64  # of a topic or filter; more is malformed
    retained_messages: int = 200_000  # one more is not acknowledged: its sender is cut
    retained_bytes: int = 256 << 20  # topics, payloads and index; the same end
    retained_per_user: int = 1000  # topics that one user may leave behind; the same end
    publishes_per_second: float = 500.0  # PUBLISH and SUBSCRIBE packets of one client; beyond it, slowed
    publish_burst: int = 1000  # packets that may come at once before that
    slowed_seconds: float = 30.0  # a client slowed for that long without a pause is cut
