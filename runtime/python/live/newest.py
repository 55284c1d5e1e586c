"""Hand items from one thread to another that may be slower."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Newest(Generic[Item]):
    """The newest items that one thread has given and another one has not taken yet. If there is no room, the oldest one is dropped."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self.dropped = 0
        """How many items were never taken."""

    def give(self, item: Item, *, wait: bool = False) -> None:
        """Add an item; with `wait`, once there is room. Nothing is added after the end."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._ended or len(self._items) < self._room)
            if self._ended:
                return
            if len(self._items) == self._room:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()

    def end(self, *, at_once: bool = False) -> None:
        """Say that no more items come; `at_once` also forgets those that were not taken yet."""
        with self._changed:
            self._ended = True
            if at_once:
                self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Yield the items, the oldest first, until the end. It waits for the next one."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._items)
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
