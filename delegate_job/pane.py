"""The script that tmux is given: `python -I -S -X utf8 pane.py JOB_DIR`; nothing but the way to `runner`.

It is short because Python compiles a script each time, but a module once.
"""

import os
import sys

if __name__ == "__main__":
    # Without `site` no installation is found; this directory's parent holds the package in all of them.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - pathlib costs 10 ms
    from delegate_job.runner import main

    sys.exit(main(sys.argv[1]))
