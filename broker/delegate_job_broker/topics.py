"""Rules of MQTT 3.1.1 §4.7 for topic names and filters, as pure functions; it keeps no state."""


def is_topic(topic: str, max_levels: int) -> bool:
    """Tell whether `topic` may stand in a PUBLISH: not empty, no wildcard, no NUL, not too deep."""
    return (
        bool(topic)
        and "+" not in topic
        and "#" not in topic
        and "\0" not in topic
        and topic.count("/") < max_levels
    )


def is_filter(topic_filter: str, max_levels: int) -> bool:
    """Tell whether `topic_filter` may stand in a SUBSCRIBE [MQTT-4.7.1-2, MQTT-4.7.1-3]."""
    levels = topic_filter.split("/")
    if not topic_filter or "\0" in topic_filter or len(levels) > max_levels:
        return False
    if any("#" in level for level in levels[:-1]):
        return False
    return all(level in {"+", "#"} or not ("+" in level or "#" in level) for level in levels)


def covers(allowed: str, requested: str) -> bool:
    """Tell whether `allowed` matches every topic that the filter, or the topic, `requested` can match.

    A wildcard in front never reaches topics that begin with `$` [MQTT-4.7.2-1].
    """
    if requested.startswith("$") and allowed[:1] in {"+", "#"}:
        return False
    rules, levels = allowed.split("/"), requested.split("/")
    for position, rule in enumerate(rules):
        if rule == "#":
            return True
        if position >= len(levels) or levels[position] == "#":
            return False
        if rule not in {"+", levels[position]}:
            return False
    return len(rules) == len(levels)
