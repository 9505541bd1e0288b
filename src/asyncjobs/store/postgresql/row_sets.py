"""`RowSet`: rows that travel to a statement as few parameters.

Short values go as one JSON text, which the server takes apart; texts that may be long go as an array for each
column, so that nobody escapes and parses them once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from msgspec import defstruct, json

from asyncjobs.store.turns import Row

# Finite: JSON has no others, and options that were not would be refused before (`options.py`).
_FLOATS = {"timeout", "kill_grace", "retry_delay", "retry_max_delay", "cpu_time"}
_WHOLE = {
    "priority",
    "attempt",
    "retry_count",
    "interruptions",
    "created_at",
    "run_at",
    "now",
    "max_retries",
    "started_at",
    "finished_at",
    "pid",
    "exit_code",
    "signal",
    "peak_rss",
}
_LONG = {"params", "result", "error", "env"}


class RowSet:
    """Rows of these columns, the first parameters of a statement: `count` of them.

    Columns after `said` have their names prefixed with `said_`, so that two may have the same.
    """

    def __init__(self, columns: Sequence[str], *, said: Sequence[str] = ()) -> None:
        self.columns = (*columns, *(f"said_{each}" for each in said))
        kinds = (*columns, *said)
        short = [place for place, kind in enumerate(kinds) if kind not in _LONG]
        self._long = [place for place, kind in enumerate(kinds) if kind in _LONG]
        self._short = itemgetter(*short)
        self._record = defstruct("Record", [(self.columns[each], Any, None) for each in short], omit_defaults=True)
        self.count = 1 + len(self._long)
        typed = ", ".join(f"{self.columns[place]} {_type(kinds[place])}" for place in short)
        arrays = "".join(f", unnest(${number}::text[])" for number in range(2, 2 + len(self._long)))
        in_order = [self.columns[place] for place in (*short, *self._long)]
        self.sql = (
            f"ROWS FROM (json_to_recordset($1::text::json) AS ({typed}){arrays}) "
            f"WITH ORDINALITY AS wanted({', '.join(in_order)}, n)"
        )

    def parameters(self, rows: Sequence[Row]) -> list[Any]:
        """Return the parameters that are these rows."""
        records = [self._record(*self._short(row)) for row in rows]
        return [json.encode(records).decode(), *([row[place] for row in rows] for place in self._long)]


def _type(kind: str) -> str:
    return "float8" if kind in _FLOATS else "int8" if kind in _WHOLE else "text"
