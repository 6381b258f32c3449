"""The least of a runner in a pane: a Python that becomes the program it is given."""

import os
import sys

os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted
