"""Hand a task to an interactive coding agent and learn whether the work is good."""

__version__ = "0.1.0"
