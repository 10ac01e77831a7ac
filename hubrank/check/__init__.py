"""The room of rules over adapters. It can be called: ``from hubrank import check`` means :func:`hubrank.check.run.check`.

A package and a function of one name meet here: whoever imports a module of this room first would otherwise get the room
where the function was meant.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubrank.check.findings import CheckReport


class _Room(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> CheckReport:
        """See :func:`hubrank.check.run.check`."""
        from hubrank.check.run import check

        return check(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
