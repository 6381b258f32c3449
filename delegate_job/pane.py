"""The script that tmux is given: `python -I -S -X utf8 pane.py JOB_DIR`; nothing but the way to `runner`.

With `--supervise JOB_DIR`, as a runner asks for it, the way to `starter`; with `--record FILE SIZE TTY`, at
the end of the pane's pipe, to `recorder`.

It is short because Python compiles a script each time, but a module once.
"""

import os
import sys

if __name__ == "__main__":
    # Without `site` no installation is found; this directory's parent holds the package in all of them.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - pathlib costs 10 ms
    if sys.argv[1] == "--supervise":
        from delegate_job.starter import ensure_running_for

        ensure_running_for(sys.argv[2])
        sys.exit()
    if sys.argv[1] == "--record":
        from delegate_job.recorder import main as record

        sys.exit(record(*sys.argv[2:]))
    from delegate_job.runner import main

    sys.exit(main(sys.argv[1]))
