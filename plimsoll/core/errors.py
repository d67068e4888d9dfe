"""The error tree: every way Plimsoll says no, with the exit code the command returns for it.

PlimsollError                1   something broke that is neither the spec nor a limit
├── UserError                2   the spec or the call is wrong; nothing was changed
│   ├── SpecError            2   a key, a value or a combination in the spec
│   ├── DataError            2   a file of rows that cannot be read or used
│   ├── ModelError           2   a model folder or hub id that cannot be used
│   └── RunError             2   a run folder or an artifact that is not what the call needs
├── Unsupported              1   this part cannot do this here (inside a search: a skipped trial)
├── ChildError               1   a process of ours ended with an error (inside a search: a failed trial)
└── StoreError               2   the disk refused a write; what was finished stays
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PlimsollError(Exception):
    """Base of all errors raised on purpose. `hint` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UserError(PlimsollError):
    """The spec or the call is wrong."""

    exit_code = 2


class SpecError(UserError):
    """A key, a value or a combination in the spec is wrong."""


class DataError(UserError):
    """A file of rows cannot be read or used."""


class ModelError(UserError):
    """A model folder or hub id cannot be used."""


class RunError(UserError):
    """A run folder or an artifact is not what the call needs."""


class Unsupported(PlimsollError):
    """This part cannot do this here; a search records it as a skipped trial."""


class ChildError(PlimsollError):
    """A process of ours ended with an error; a search records it as a failed trial."""

    def __init__(self, message: str, hint: str = "", traceback: str = "") -> None:
        super().__init__(message, hint)
        self.traceback = traceback


class StoreError(PlimsollError):
    """The disk refused a write; what was finished before stays."""

    exit_code = 2


def nearest(unknown: str, known: Iterable[str]) -> str:
    """Return `did you mean "x"?` for the closest known name, or the list of what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(unknown, names, n=1, cutoff=0.5)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"known: {', '.join(names)}" if names else "nothing is known by any name here"
