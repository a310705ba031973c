"""Who an object is, from its first tags, and the file it becomes."""

import tracemalloc
import zlib
from io import BytesIO

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_io import part10
from dicom_io.errors import InvalidObject, NotDicom
from dicom_io.part10 import Identity, file_header
from dicom_io.values import TransferSyntaxUID
from tests.factories import PATIENT, make_dx, study_uid
from tests.fakes import SentRequest, request_for

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value length")
"""pydicom's, while a test writes what it should not."""


def _encoded(ds: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    write_dataset(buffer, ds)
    if syntax == DeflatedExplicitVRLittleEndian:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflate.compress(buffer.getvalue()) + deflate.flush()
    return buffer.getvalue()


def identify(request: SentRequest) -> Identity:
    return part10.identify(request, BytesIO(request.dataset))


def _request(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> SentRequest:
    return request_for(ds, dataset=_encoded(ds, syntax), transfer_syntax=TransferSyntaxUID(syntax))


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_every_encoding_names_the_same_object(syntax: str) -> None:
    ds = make_dx()
    del ds.PixelData
    ds.IssuerOfPatientID = "HOSPITAL"
    identity = identify(_request(ds, syntax))
    assert (identity.sop_class_uid, identity.sop_instance_uid) == (ds.SOPClassUID, ds.SOPInstanceUID)
    assert (identity.study_uid, identity.series_uid) == (study_uid(), ds.SeriesInstanceUID)
    assert (identity.patient_id, identity.issuer_of_patient_id) == (PATIENT.patient_id, "HOSPITAL")
    assert (identity.modality, identity.accession_number) == ("DX", "ACC-1")


def test_what_is_missing_but_allowed_to_be_is_empty() -> None:
    ds = make_dx()
    del ds.PatientID, ds.AccessionNumber, ds.Modality
    identity = identify(_request(ds))
    assert (identity.patient_id, identity.accession_number, identity.modality) == ("", "", "")


def test_a_patient_id_is_decoded_by_the_character_set() -> None:
    ds = make_dx()
    ds.PatientID = "Ä-17 山"
    assert identify(_request(ds)).patient_id == "Ä-17 山"


def test_text_longer_than_its_column_is_cut() -> None:
    ds = make_dx()
    with pydicom.config.disable_value_validation():
        ds.PatientID = "P" * 200
        ds.Modality = "M" * 40
    identity = identify(_request(ds))
    assert (len(identity.patient_id), len(identity.modality)) == (64, 16)


def test_null_bytes_which_postgresql_does_not_store_are_left_out() -> None:
    encoded = _encoded(make_dx(), ExplicitVRLittleEndian).replace(b"TEST-0001", b"TEST\x00\x00001")
    assert identify(request_for(make_dx(), dataset=encoded)).patient_id == "TEST001"


@pytest.mark.parametrize("uid", ["1.02.3", "1.2.3 ", "0"])
def test_a_uid_that_is_nearly_right_is_taken(uid: str) -> None:
    ds = make_dx()
    with pydicom.config.disable_value_validation():
        ds.StudyInstanceUID = uid
    assert identify(_request(ds)).study_uid == uid.strip()


@pytest.mark.parametrize("uid", ["", "   ", "x", "1.2.x", "." * 3, "1." * 33, "1.2\\1.3", "../../etc"])
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_uid_that_is_none_is_refused_by_its_keyword_and_not_quoted(keyword: str, uid: str) -> None:
    ds = make_dx()
    with pydicom.config.disable_value_validation():
        setattr(ds, keyword, uid)
        request = _request(ds)
    with pytest.raises(InvalidObject, match=f"^{keyword} is ") as caught:
        identify(request)
    assert uid.strip() == "" or uid not in str(caught.value)


def test_nothing_behind_the_identity_is_parsed() -> None:
    ds = make_dx()
    encoded = _encoded(ds, ExplicitVRLittleEndian)
    pixels_begin = encoded.index(b"\x28\x00\x02\x00US")  # SamplesPerPixel, the first tag of group 0028
    assert identify(request_for(ds, dataset=encoded[:pixels_begin] + b"\x28\x00\x02\x00US garbage without end"))


def test_a_deflated_bomb_is_inflated_only_so_far() -> None:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflate.compress(_encoded(make_dx(), ExplicitVRLittleEndian)) + deflate.compress(bytes(64 * 1024 * 1024))
    request = request_for(make_dx(), dataset=bomb, transfer_syntax=TransferSyntaxUID(DeflatedExplicitVRLittleEndian))
    tracemalloc.start()
    identify(request)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * 1024 * 1024


@pytest.mark.parametrize("encoded", [b"", b"\x00", b"nonsense", b"\x08\x00\x16\x00UI\xff\xff1.2"])
def test_nonsense_is_refused(encoded: bytes) -> None:
    with pytest.raises((NotDicom, InvalidObject)):
        identify(request_for(make_dx(), dataset=encoded))


def test_the_file_has_a_preamble_our_names_and_the_senders() -> None:
    ds = make_dx()
    request = request_for(ds, calling_ae_title="XRAY-ROOM-2")
    header = file_header(request, receiver="CXRWORKER")
    assert header[:132] == bytes(128) + b"DICM"
    read = pydicom.dcmread(BytesIO(header + request.dataset))
    assert read == ds
    assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert read.file_meta.SourceApplicationEntityTitle == "XRAY-ROOM-2"
    assert read.file_meta.ReceivingApplicationEntityTitle == "CXRWORKER"
    assert read.file_meta.ImplementationVersionName.startswith("CXRWORKER_")
