"""Errors that a user can cause: one line that names the file or key and the remedy, exit status 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import PurePath


class UserError(Exception):
    """A user's mistake. The message is one line: what is wrong, where, and what to do about it."""


class DiskFull(UserError):
    """There is no room to write: no fault of the file that was being read, so nothing goes on without it."""


class Diverged(Exception):
    """The loss became NaN or infinite, again and again: no mistake in a call, but no fault of the code either."""


def suggest(word: str, known: Iterable[str], most: int = 20) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or `most` known words when none is near."""
    options = sorted(map(str, known))
    near = difflib.get_close_matches(str(word), options, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    shown = ", ".join(options[:most]) + (", ..." if len(options) > most else "")
    return f"; known: {shown}" if options else ""


def near(word: str, known: Iterable[str], most: int = 3) -> str:
    """Return ``"; near ones: x, y"`` with at most `most` known names, or "" when none is near.

    Names that hold the word come first, and of these the ones that begin with it: a title may be long. Names that are
    paths are compared by their last part, too: an index of files has hundreds of long ones.
    """
    names: dict[str, str] = {}
    for name in map(str, known):
        names |= {PurePath(name).name: name, name: name}
    asked = str(word).casefold()
    holding = sorted((n for n in names if asked in n.casefold()), key=lambda n: not n.casefold().startswith(asked))
    alike = [*holding, *difflib.get_close_matches(str(word), names, n=2 * most, cutoff=0.6)]
    found = list(dict.fromkeys(names[name] for name in alike))[:most]
    return f"; near ones: {', '.join(found)}" if found else ""
