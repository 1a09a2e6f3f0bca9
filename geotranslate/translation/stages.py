"""Work in stages that overlap: each stage is a thread of its own, fed in order and not too far."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def stage(
    context: AbstractContextManager[Callable[[Item], Result]],
    items: Iterable[Item],
    *,
    depth: int,
) -> Generator[Result]:
    """Results in the items' order, made by one thread while the caller does something else.

    An error in the thread is raised where its result would come. Left early, by an error or by
    closing the iterator, what has not begun is dropped and what has begun is waited for.

    Args:
        context: gives what makes a result of an item; it is entered and left in the thread, so
            what it opens is never shared. It is left as by an error when this is left early.
        items: asked for in the caller's thread.
        depth: results that are made, or being made, before they are asked for.
    """
    entered: list[Callable[[Item], Result]] = []

    def leave(error: BaseException) -> None:
        # Begun after all else has ended: an interrupt may have come before or while it was entered.
        if entered:
            context.__exit__(type(error), error, error.__traceback__)

    with ThreadPoolExecutor(max_workers=1) as thread:
        # Starts the thread while nothing is open: interrupted at that, the pool would start two.
        thread.submit(bool).result()
        pending: deque[Future[Result]] = deque()
        try:
            thread.submit(lambda: entered.append(context.__enter__())).result()
            function = entered[0]
            for item in items:
                pending.append(thread.submit(function, item))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BaseException as error:
            for future in pending:
                future.cancel()
            thread.submit(leave, error).result()
            raise
        thread.submit(context.__exit__, None, None, None).result()
