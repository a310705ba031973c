"""What gets into the log, and above all what does not."""

import json
import logging
import warnings

import pytest
import structlog

from worker.log import ALLOWED_FIELDS, configure, keep_allowed, traceback_of


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_is_an_event_with_the_allowed_fields_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json_lines=True)
    structlog.get_logger().info("study.complete", study_id=7, patient_name="Doe^John", study_uid="1.2.3", accession_number="A1")
    (line,) = _lines(capsys)
    assert line.pop("timestamp")
    assert line == {"event": "study.complete", "level": "info", "study_id": 7}


def test_no_field_that_names_a_patient_or_an_object_is_allowed() -> None:
    words = ("patient", "name", "birth", "uid", "accession", "path", "file", "dataset", "message", "detail", "exception", "url")
    assert [field for field in ALLOWED_FIELDS for word in words if word in field] == []


def test_what_a_library_says_is_not_repeated_only_that_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json_lines=True)
    try:
        raise ValueError("Doe^John")  # noqa: TRY301  a library's error, with a value in it
    except ValueError:
        logging.getLogger("pydicom").exception("Invalid value for PN: %s", "Doe^John")
    (line,) = _lines(capsys)
    assert (line["event"], line["library"], line["error"]) == ("library.message", "pydicom", "ValueError")
    assert "Doe" not in json.dumps(line)
    assert str(line["where"]).startswith("test_log.py:")


def test_what_our_own_dicom_side_says_is_told_without_the_values_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json_lines=True)
    logging.getLogger("dicom_io.lobby").warning("No connection can be taken for now: %s.", "Doe^John")
    (line,) = _lines(capsys)
    assert (line["library"], line["why"]) == ("dicom_io.lobby", "No connection can be taken for now: %s.")
    assert "Doe" not in json.dumps(line)


def test_a_library_that_says_the_same_again_and_again_is_told_once_a_minute_with_a_count(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(json_lines=True)

    def said(at_seconds: float, line: int, error: Exception | None = None) -> None:
        facts = {
            "name": "asyncio",
            "levelno": logging.ERROR,
            "filename": "base_events.py",
            "lineno": line,
            "created": at_seconds,
        }
        logging.getLogger("asyncio").handle(logging.makeLogRecord(facts | {"exc_info": error and (type(error), error, None)}))

    for hundredth in range(1000):
        said(1e9 + hundredth / 100, 1771)
    said(1e9 + 30, 12)
    said(1e9 + 30, 1771, OSError())
    said(1e9 + 61, 1771)
    said(1e9 - 3600, 1771)  # the clock was set back
    told = [(line["where"], line.get("error"), line["count"]) for line in _lines(capsys)]
    place = "base_events.py:1771"
    assert told == [
        (place, None, 1),
        ("base_events.py:12", None, 1),
        (place, "OSError", 1),
        (place, None, 1000),
        (place, None, 1),
    ]


def test_a_warning_is_logged_without_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json_lines=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Invalid PN Doe^John", UserWarning, stacklevel=1)
    said = capsys.readouterr().err
    assert "library.message" in said
    assert "Doe" not in said


def test_what_a_library_says_in_passing_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure(json_lines=True)
    logging.getLogger("pynetdicom").info("Association accepted")
    assert _lines(capsys) == []


def test_keeping_only_what_is_allowed_keeps_the_order() -> None:
    event = {"event": "x", "seconds": 1, "secret": 2, "level": "info"}
    assert list(keep_allowed(None, "info", event)) == ["event", "seconds", "level"]


def test_a_traceback_names_the_way_and_not_the_message() -> None:
    def inner() -> None:
        raise ValueError("Doe^John")

    with pytest.raises(ValueError, match="Doe") as caught:
        inner()
    way = traceback_of(caught.value)
    assert way.endswith(" inner")
    assert "test_log.py:" in way
    assert "Doe" not in way
