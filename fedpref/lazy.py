"""A sequence whose items are made when they are asked for, so that a million clients cost nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

__all__ = ["LazySequence"]

T = TypeVar("T")


class LazySequence(Sequence[T], Generic[T]):
    """Item i is ``make(i)``; the newest ``keep`` items are remembered.

    Attributes:
        make: a pure function of the position: an item that was forgotten is made again.
        keep: items remembered; at least as many as clients work at a time.

    Raises:
        ValueError: nothing is to be kept.
    """

    def __init__(self, count: int, make: Callable[[int], T], keep: int = 1024) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep} must be at least 1")
        self.make = make
        self.keep = keep
        self._count = count
        self._made: OrderedDict[int, T] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        position = range(self._count)[index]
        if position in self._made:
            self._made.move_to_end(position)
            return self._made[position]
        item = self._made[position] = self.make(position)
        while len(self._made) > self.keep:
            self._made.popitem(last=False)
        return item

    def __iter__(self) -> Iterator[T]:
        return (self[i] for i in range(self._count))

    def __reduce__(self) -> tuple[type[LazySequence[T]], tuple[int, Callable[[int], T], int]]:
        return type(self), (self._count, self.make, self.keep)  # other processes make their own
