"""The least that any Python command with a command line, a registry and tmux has to do before an agent runs.

It registers nothing, hears nothing and checks nothing: it is what `submit` is measured against.
Usage: floor.py TMUX-LABEL WORKDIR PROGRAM
"""

import socket
import sqlite3  # noqa: F401 - its import is part of what is measured
import subprocess
import sys
from pathlib import Path

import typer  # noqa: F401 - as sqlite3

label, workdir, program = sys.argv[1:]
broker = socket.create_server(("127.0.0.1", 0))
runner = [sys.executable, "-I", str(Path(__file__).with_name("floor_runner.py")), program]
session = ["tmux", "-L", label, "new-session", "-d", "-s", "floor", "-c", workdir, "--", *runner]
subprocess.run(session, check=True)
