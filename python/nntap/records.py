"""Where a cache's values are: in a recorder, or, once unpickled, in plain Python."""

from __future__ import annotations

from typing import Any, Protocol

from nntap.core import INPUTS, OUTPUT, Recorder
from nntap.stats import Stats


class Records(Protocol):
    """Recorded values by module path and visit."""

    def __contains__(self, path: object) -> bool: ...

    def order(self) -> list[str]:
        """The recorded paths, by their first record."""

    def selected(self, path: str) -> bool:
        """Whether the path was to be recorded, run or not."""

    def count(self, path: str) -> int:
        """How often the module was seen."""

    def output(self, path: str, visit: int) -> Any: ...

    def inputs(self, path: str, visit: int) -> Any: ...

    def stats(self) -> Stats: ...


class LiveRecords:
    """Values in a recorder of the core; a value becomes torch tensors when it is first read."""

    def __init__(self, recorder: Recorder, paths: list[str]) -> None:
        self._recorder = recorder
        self._paths = paths
        self._made_index: dict[str, int] | None = None

    @property
    def _index(self) -> dict[str, int]:
        if self._made_index is None:
            self._made_index = {path: index for index, path in enumerate(self._paths)}
        return self._made_index

    def __contains__(self, path: object) -> bool:
        index = self._index.get(path) if isinstance(path, str) else None
        return index is not None and self._recorder.visits(index) > 0

    def order(self) -> list[str]:
        return [self._paths[index] for index in self._recorder.order()]

    def selected(self, path: str) -> bool:
        return path in self._index

    def count(self, path: str) -> int:
        return self._recorder.visits(self._index[path])

    def output(self, path: str, visit: int) -> Any:
        return self._recorder.read(self._index[path], visit, OUTPUT)

    def inputs(self, path: str, visit: int) -> Any:
        return self._recorder.read(self._index[path], visit, INPUTS)

    def stats(self) -> Stats:
        return Stats.from_core(self._recorder.stats())


class StoredRecords:
    """Values as ``(output, inputs)`` pairs by path, as they are pickled."""

    def __init__(self, visits: dict[str, list[tuple[Any, Any]]], stats: Stats) -> None:
        self._visits = visits
        self._stats = stats

    @classmethod
    def of(cls, records: Records) -> StoredRecords:
        """A plain copy of the records; tensors are shared with them."""
        visits = {
            path: [(records.output(path, visit), records.inputs(path, visit)) for visit in range(records.count(path))]
            for path in records.order()
        }
        return cls(visits, records.stats())

    def __contains__(self, path: object) -> bool:
        return path in self._visits

    def order(self) -> list[str]:
        return list(self._visits)

    def selected(self, path: str) -> bool:
        return path in self._visits

    def count(self, path: str) -> int:
        return len(self._visits[path])

    def output(self, path: str, visit: int) -> Any:
        return self._visits[path][visit][0]

    def inputs(self, path: str, visit: int) -> Any:
        return self._visits[path][visit][1]

    def stats(self) -> Stats:
        return self._stats
