"""Asking a PACS how many instances a study has: C-FIND at study level (PS3.4 C.4.1 and C.6.2)."""

import re
import ssl
from collections.abc import Iterator, Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from dicom_io.command import Element, Request
from dicom_io.errors import NotDicom, PeerRefused, PeerUnavailable
from dicom_io.payload import decode_payload, encode_payload, text_of
from dicom_io.proposal import Context
from dicom_io.requestor import ANSWER_SECONDS, Association, Command, associate
from dicom_io.values import Peer, SOPClassUID, StudyUID, TransferSyntaxUID

_STUDY_ROOT: Final = SOPClassUID("1.2.840.10008.5.1.4.1.2.2.1")
_CONTEXT: Final[Context] = (_STUDY_ROOT, TransferSyntaxUID(ImplicitVRLittleEndian))
_MEDIUM: Final = 0x0000
_SUCCESS: Final = 0x0000
_PENDING: Final = frozenset({0xFF00, 0xFF01})
_MOST_ANSWERS: Final = 64
"""To a question with one answer. A peer that gives more does not look at the key, and would name every study it has."""
_COUNT: Final = re.compile(r" *\+?(\d{1,9}) *")


def count_instances(
    peer: Peer, study_uids: Sequence[StudyUID], *, calling_ae_title: str, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[StudyUID, int | PeerRefused | None]]:
    """Ask for each study how many instances it has there, over one association, in the order given.

    Yields
    ------
    tuple
        The study, and its Number of Study Related Instances (0020,1208); None where the peer does not know it or does not say,
        an error where it refuses this question: the others are asked.

    Raises
    ------
    PeerUnavailable
        No association, no answer, or it broke off.
    PeerRefused
        It does not answer such questions, or answers one with many.
    """
    with associate(peer, [_CONTEXT], calling_ae_title=calling_ae_title, tls=tls) as association:
        for study_uid in study_uids:
            yield study_uid, _count(association, study_uid)


def _count(association: Association, study_uid: StudyUID) -> int | PeerRefused | None:
    command: Command = {
        Element.AFFECTED_SOP_CLASS_UID: _STUDY_ROOT,
        Element.COMMAND_FIELD: Request.C_FIND,
        Element.PRIORITY: _MEDIUM,
    }
    count = None
    answer = association.ask(_CONTEXT, command, _question(study_uid))
    for _ in range(_MOST_ANSWERS):
        status = answer.command.get(Element.STATUS)
        if status == _SUCCESS:
            return count
        if status not in _PENDING:
            return PeerRefused(f"C-FIND was answered 0x{status:04X}." if isinstance(status, int) else "C-FIND has no status.")
        found = _read(answer.dataset, study_uid)
        count = count if found is None else found
        following = association.next_request(seconds=ANSWER_SECONDS)
        if following is None:
            raise PeerUnavailable("The peer did not finish its answer to C-FIND.")
        answer = following
    raise PeerRefused("The peer answers a question for one study with many.")


def _question(study_uid: StudyUID) -> bytes:
    ds = Dataset()
    ds.QueryRetrieveLevel = "STUDY"
    ds.StudyInstanceUID = study_uid
    ds.NumberOfStudyRelatedInstances = ""
    return encode_payload(ds)


def _read(encoded: bytes, study_uid: StudyUID) -> int | None:
    """The count of one answer, or None where it is of another study or no number."""
    try:
        ds = decode_payload(encoded, ImplicitVRLittleEndian)
        if text_of(ds, "StudyInstanceUID") != study_uid or "NumberOfStudyRelatedInstances" not in ds:
            return None
    except NotDicom:
        return None
    raw = ds.get_item("NumberOfStudyRelatedInstances").value  # its conversion would raise over what is no number
    match = _COUNT.fullmatch(raw.decode("ascii", "replace") if isinstance(raw, bytes) else str(raw or ""))
    return int(match[1]) if match else None
