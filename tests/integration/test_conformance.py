"""The conformance statement says what the code does."""

from pathlib import Path

import pytest
from pydicom.uid import UID
from typer.testing import CliRunner

from dicom_io.eligibility import ReasonCode
from dicom_io.kinds import SERIES, Kind
from dicom_io.negotiation import PREFERRED_SYNTAXES
from dicom_io.status import StoreStatus
from worker.cli.app import app
from worker.conformance import conformance_statement

STATEMENT = Path(__file__).parents[2] / "docs" / "conformance.md"


@pytest.fixture(scope="module")
def statement() -> str:
    return conformance_statement()


def test_the_statement_in_the_docs_is_the_one_that_the_code_writes(statement: str) -> None:
    assert STATEMENT.read_text(encoding="utf-8") == statement, "write it anew: cxr-worker conformance > docs/conformance.md"


def test_the_command_prints_it(statement: str) -> None:
    assert CliRunner().invoke(app, ["conformance"]).output == statement


def test_every_syntax_status_reason_and_kind_stands_in_it(statement: str) -> None:
    for syntax in PREFERRED_SYNTAXES:
        assert f"| {UID(syntax).name} | {syntax} |" in statement
    for status in StoreStatus:
        assert f"| 0x{status:04X} {status.name} | " in statement
    for code in ReasonCode:
        assert f"| `{code}` | " in statement
    for kind, series in SERIES.items():
        assert f"\n#### {kind}\n" in statement
        assert f"| {series.modality} | {series.number} |" in statement


def test_every_made_object_is_listed_with_whose_patient_it_is(statement: str) -> None:
    for kind in Kind:
        table = statement.partition(f"\n#### {kind}\n")[2].partition("\n####")[0]
        assert "| (0010,0020) | PatientID | LO | VNAP | IMAGE |" in table
        assert "| (0020,000D) | StudyInstanceUID | UI | ALWAYS | IMAGE |" in table
        assert "| (0008,0018) | SOPInstanceUID | UI | ALWAYS | AUTO |" in table
