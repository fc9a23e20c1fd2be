"""Worker processes that end with their parent, however it ends."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

Answer = TypeVar("Answer")


def open_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of fresh processes (a fork would inherit TensorFlow's locked threads)."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)


def map_in_workers(
    function: Callable[..., Answer], arguments: Sequence[Iterable[Any]], workers: int, worthwhile: bool
) -> list[Answer]:
    """function(*arguments[i]) for all i, in `workers` processes if that is `worthwhile`."""
    if not worthwhile or workers < 2 or len(arguments) < 2:
        return [function(*each) for each in arguments]
    with open_pool(workers) as pool:
        try:
            return [future.result() for future in [pool.submit(function, *each) for each in arguments]]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """Without this, a killed trainer would leave its workers waiting for ever."""
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
