"""The script that agents' hooks run: `python -I -S -X utf8 hook.py AGENT JOB_ID LOG_DIR JOB_DIR EVENT`.

Nothing but the way to `hooks`. Whatever fails, it ends with 0 and prints nothing: an agent may read anything
else as a decision. It is short because Python compiles a script each time, but a module once.
"""

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - pathlib costs 10 ms
    try:
        from delegate_job.hooks import main

        main(sys.argv[1:])
    finally:
        os._exit(0)
