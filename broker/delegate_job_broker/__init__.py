"""An embedded MQTT 3.1.1 broker: amqtt 0.12.1, mended. It knows bytes and topics, and no jobs."""
