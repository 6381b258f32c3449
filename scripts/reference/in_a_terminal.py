"""Run a program in a terminal of 200x50, as that of a job is, and read what it says.

Usage: in_a_terminal.py PROGRAM [ARG...]
"""

import fcntl
import os
import pty
import struct
import sys
import termios

child, terminal = pty.fork()
if not child:
    os.environ["TERM"] = "xterm-256color"
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
try:
    while os.read(terminal, 65536):
        pass
except OSError:
    pass  # Linux says the end of a terminal so.
os.waitpid(child, 0)
