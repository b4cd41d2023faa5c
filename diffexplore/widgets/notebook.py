"""A widget's life in a notebook: it goes when the cell that made it is run again, and leaves a picture where it stood.

Pages of a notebook forget what a cell showed when it is run again; the kernel does not. ipywidgets keeps every open
widget, with its model, its runs and its line to the browser, so that a cell that is run ten times would leave ten of
them, nine of which nobody can reach. So a widget remembers the cell that it was made in, and the next run of that cell
closes it before anything else happens. A closed widget that somebody still holds keeps what it knows as data: its
settings, its traces.
"""

from __future__ import annotations

import weakref
from typing import Any, Final

from IPython.core.getipython import get_ipython

__all__ = ["InNotebook", "cell_now", "watched"]

_made: Final[dict[str, weakref.WeakSet[InNotebook]]] = {}
"""Cell -> the widgets that its last run made."""
_listening: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""The shells whose cells are listened to."""


def cell_now() -> str | None:
    """The cell that is being run, as the page that asked for it calls it; None where no page says, as in a console."""
    shell = get_ipython()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else None
    found = parent.get("metadata", {}).get("cellId") if isinstance(parent, dict) else None
    return found if isinstance(found, str) and found else None


def watched() -> bool:
    """Whether a person is at the page that asked for the cell being run. What executes a notebook on its own, to export
    it, lets nobody be asked; and it hears nothing of what comes after a cell's end."""
    shell = get_ipython()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else None
    content = parent.get("content", {}) if isinstance(parent, dict) else {}
    return bool(content.get("allow_stdin", True))


class InNotebook:
    """What a widget has to be at home in a notebook; a base to stand before that of ipywidgets.

    Call `settle_in` when the widget is whole: what was refused while being made was never there.
    """

    def settle_in(self) -> None:
        """Belong to the cell that is being run, and go when it is run again."""
        cell, shell = cell_now(), get_ipython()
        if cell is None:
            return
        _made.setdefault(cell, weakref.WeakSet()).add(self)
        if shell not in _listening:
            _listening.add(shell)
            shell.events.register("pre_run_cell", _clear)

    def _ipython_display_(self, **_: Any) -> None:
        """Asked for by IPython, in place of a `_repr_mimebundle_`: a display is more than one output."""
        self.displayed_by().hand_ins.display(self)

    def displayed_by(self) -> Any:
        """The viewer: this, or the one inside."""
        return getattr(self, "viewer", self)


def _clear(*_: Any) -> None:
    """A cell begins: close what its last run made."""
    gone = list(_made.pop(cell_now() or "", ()))
    if not gone:
        return
    shell = get_ipython()
    for one in gone:
        one.displayed_by().hand_ins.close()  # what stood for it is gone with the cell's outputs
        one.close()  # type: ignore[attr-defined]
        _forget(shell, one)


def _forget(shell: Any, widget: InNotebook) -> None:
    """Take a widget out of what the shell keeps of earlier cells (``Out``, ``_5``, ``_``), which would keep its runs in
    memory; names that a person gave stay."""
    outs = shell.user_ns.get("_oh")
    numbers = [key for key, value in outs.items() if value is widget] if isinstance(outs, dict) else []
    for number in numbers:
        del outs[number]
    for names in (shell.user_ns, shell.user_ns_hidden):
        for name in ("_", "__", "___", *(f"_{number}" for number in numbers)):
            if names.get(name) is widget:
                names[name] = ""
    for name in ("_", "__", "___"):
        if getattr(shell.displayhook, name, None) is widget:
            setattr(shell.displayhook, name, "")
