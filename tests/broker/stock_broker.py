"""Stock amqtt on a loopback port, with the test users' rights in a plugin; a program that mends nothing."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin

if TYPE_CHECKING:
    from delegate_job_broker import AccessList

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


class Rights(BaseAuthPlugin, BaseTopicPlugin):
    """The access list as a plugin, as amqtt means it."""

    @dataclass
    class Config:
        """The access list, by reference."""

        access: Any = None

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.access: AccessList = self.config.access

    async def authenticate(self, *, session: Any) -> bool:
        """Compare the token."""
        return self.access.authenticate(session.username, session.password) is not None

    async def topic_filtering(self, *, session: Any = None, topic: Any = None, action: Any = None) -> bool:
        """Look the topic or filter up."""
        grant = self.access.current(session.username)
        if grant is None:
            return False
        return grant.may_publish(topic) if action == Action.PUBLISH else grant.may_subscribe(topic)


async def main(port: int) -> None:
    """Serve until killed."""
    from broker.servers import access_list

    plugin = f"{Rights.__module__}.{Rights.__qualname__}"
    await Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {plugin: {"access": access_list()}},
        }
    ).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main(int(sys.argv[1])))
