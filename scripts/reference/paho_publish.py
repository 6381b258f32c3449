"""Ten lines of paho: connect, publish with QoS 1, wait, disconnect. It records nothing.

Usage: paho_publish.py HOST PORT USER PASSWORD TOPIC
"""

import sys

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

host, port, user, password, topic = sys.argv[1:]
client = Client(CallbackAPIVersion.VERSION2)
client.username_pw_set(user, password)
client.connect(host, int(port))
client.loop_start()
client.publish(topic, "{}", qos=1, retain=True).wait_for_publish(5)
client.disconnect()
client.loop_stop()
