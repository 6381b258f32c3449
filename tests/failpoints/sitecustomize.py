"""Kills its own process, as `kill -9` does, at a step that a test has named; on the PYTHONPATH of such tests.

It knows nothing of the steps: PYTHON_FAILPOINT is `MODULE:FUNCTION:WHEN:COUNT` (`WHEN` is before or after the
call number COUNT), and PYTHON_FAILPOINT_FUSE a file that is burnt, so that only one process dies of it. The
names begin so because a supervisor inherits variables of Python's.
"""

import functools
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_module, _, _rest = os.environ.get("PYTHON_FAILPOINT", "").partition(":")


class _Finder:
    """Finds one module, and has its function wrapped as soon as it was executed."""

    @classmethod
    def find_spec(
        cls, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's own spec, with a loader that arms it; None for all other modules."""
        if name != _module:
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_arm(module: ModuleType) -> None:
            execute(module)
            _arm(module, *_rest.split(":"))

        spec.loader.exec_module = execute_and_arm  # type: ignore[method-assign] # a loader of this module alone
        return spec


def _arm(module: ModuleType, function: str, when: str, count: str) -> None:
    *owners, name = function.split(".")
    place: Any = functools.reduce(getattr, owners, module)
    original: Callable[..., Any] = getattr(place, name)
    left = int(count)

    @functools.wraps(original)
    def armed(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            _die()
        answer = original(*args, **kwargs)
        if left == 0 and when == "after":
            _die()
        return answer

    setattr(place, name, armed)


def _die() -> None:
    try:
        os.unlink(os.environ["PYTHON_FAILPOINT_FUSE"])  # noqa: PTH108 - no import more than the process has
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


if _module:
    sys.meta_path.insert(0, _Finder)
