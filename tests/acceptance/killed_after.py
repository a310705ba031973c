"""Runs ``cxr-worker`` and kills it, as a power cut would, when one step has done its work for the first time.

    python killed_after.py STEP serve --config FILE

The steps are wrapped from outside: the product knows nothing of this.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from worker.cli import main

STEPS = {
    "store": "worker.pipeline:store",  # the file is durable, its row is not there
    "receive": "worker.reception:receive",  # committed, 0x0000 not answered
    "complete": "worker.pipeline:complete_studies",
    "select": "worker.engine:select",
    "prepare": "worker.engine:prepare",
    "predict": "cxr_models.predict:Predictor.predict",
    "record": "worker.pipeline:record",
    "keep": "worker.telling:keep",  # the report's file is durable, its row is not there
    "report": "worker.telling:report",  # queued, the study not yet called reported
    "reported": "worker.pipeline:report_studies",
    "deliver": "worker.pipeline:deliver",  # the PACS has it, the database does not know
    "delivered": "worker.pipeline:deliver_reports",
}
OF_COMMITMENT = {"asked": "worker.commitment:ask"}  # the destination was asked, the database does not know


def kill_after(step: str) -> None:
    """Wrap a step so that the process dies once it has returned something."""
    module_name, _, path = (STEPS | OF_COMMITMENT)[step].partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module_name)
    for each in owners:
        owner = getattr(owner, each)
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if isinstance(result, Iterator):
            return _dying_at_the_first(result)
        if result is None or result:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def _dying_at_the_first(results: Iterator[Any]) -> Iterator[Any]:
    for _ in results:
        os.kill(os.getpid(), signal.SIGKILL)
        yield _


if __name__ == "__main__":
    kill_after(sys.argv[1])
    sys.argv = ["cxr-worker", *sys.argv[2:]]
    main()
