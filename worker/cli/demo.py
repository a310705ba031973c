"""What ``cxr-worker demo`` shows of the studies that it sent."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dicom_io.wording.english import ENGLISH
from worker.cli.printing import print_table
from worker.demo.run import QUIET_SECONDS, DemoResult


def print_results(results: Sequence[DemoResult]) -> None:
    """Print a row for each study, and below the table what they come to."""
    named = any(result.study.truth for result in results)
    columns = ["image", *(["folder says"] if named else []), "answer", "probabilities", "triage", "seconds"]
    print_table(columns, (_row(result, named=named) for result in results))
    states = Counter(result.found["state"] if result.found else "not received" for result in results)
    print(f"{len(results)} studies: " + ", ".join(f"{count} {state}" for state, count in states.items()) + ".")
    answers = [(result.study.truth, _answer(result)) for result in results if result.study.truth]
    right = [truth == answer["label"] for truth, answer in answers if answer]
    if right:
        print(f"The answer is the folder's label for {sum(right)} of {len(right)}.")
    print(f"Seconds from the last C-STORE response to the report in the PACS, {QUIET_SECONDS} s of quiet time included.")
    print(ENGLISH.disclaimer)


def _row(result: DemoResult, *, named: bool) -> list[str]:
    found, truth = result.found, [result.study.truth or ""] if named else []
    took = "" if result.seconds is None else f"{result.seconds:.2f}"
    if found is None:
        return [result.study.source, *truth, "not received: see above", "", "none", took]
    answer = _answer(result)
    said = answer["label"] if answer else found["reason"] or found["state"]
    numbers = " ".join(f"{name} {share:.2f}" for name, share in answer["probabilities"].items()) if answer else ""
    return [result.study.source, *truth, said, numbers, found["triage"], took]


def _answer(result: DemoResult) -> dict[str, Any] | None:
    """What was answered of the first of its images that was analysed."""
    images = result.found["images"] if result.found else ()
    return next((image["predictions"][-1] for image in images if image["predictions"]), None)
