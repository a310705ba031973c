"""Which associations and presentation contexts are accepted (PS3.7 annex D, PS3.8 sections 9.3.2 to 9.3.4)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from dicom_io.errors import NotDicom
from dicom_io.foreign import any_error_as
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_io.values import EXACT_UID, SOPClassUID, TransferSyntaxUID

VERIFICATION = "1.2.840.10008.1.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
MAX_PDU_BYTES = 128 * 1024
"""Large images arrive faster in large PDUs than in the usual 16 KB."""

UNCOMPRESSED: tuple[str, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
# Cheap to decode first, lossless before lossy. What stands here can be decoded; anything else is kept and not analysed.
PREFERRED_SYNTAXES: tuple[str, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
    JPEG2000Lossless,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGLSNearLossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEG2000,
)
_SHORTEST_REQUEST_BYTES = 74
"""What of it has a fixed length (PS3.8 table 9-11)."""
_ACCEPTED, _ABSTRACT_SYNTAX_NOT_SUPPORTED, _TRANSFER_SYNTAXES_NOT_SUPPORTED = 0, 3, 4


class Refusal(Enum):
    """Why an association is rejected: result, source and reason (PS3.8 table 9-21), and in words."""

    CALLED_AE = (1, 1, 7), "its called AE title is not ours: set it right there, or add it to dicom.called_ae_titles"
    CALLING_AE = (1, 1, 3), "its calling AE title is not in dicom.calling_ae_titles"
    ADDRESS = (1, 1, 1), "its address is not in dicom.addresses"
    APPLICATION_CONTEXT = (1, 1, 2), "its application context is not that of DICOM"
    PROTOCOL_VERSION = (1, 2, 2), "it speaks another version of the protocol"
    TOO_MANY = (2, 3, 2), "dicom.maximum_associations are open"
    TOO_MANY_OF_CALLER = (2, 3, 2), "dicom.maximum_associations_per_caller of it are open"
    NO_THREAD = (2, 3, 1), "the system gives no more threads: allow more of them, or lower dicom.maximum_associations"

    @property
    def words(self) -> str:
        """For the log and the events."""
        return self.value[1]

    def encode(self) -> bytes:
        """The A-ASSOCIATE-RJ."""
        result, source, reason = self.value[0]
        return bytes((3, 0, 0, 0, 0, 4, 0, result, source, reason))


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedContext:
    """What a presentation context was agreed to be."""

    sop_class_uid: SOPClassUID
    transfer_syntax: TransferSyntaxUID
    keeps: bool
    """Whether it is for storage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An association request, decoded."""

    request: A_ASSOCIATE_RQ
    primitive: A_ASSOCIATE
    called_ae_title: str
    calling_ae_title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What was accepted, and the A-ASSOCIATE-AC that says so."""

    contexts: Mapping[int, AcceptedContext]
    answer: bytes
    maximum_pdu_bytes: int
    """What the peer takes; 0: anything."""


def titles_of(encoded: bytes) -> tuple[str, str]:
    """The called and the calling AE title of an A-ASSOCIATE-RQ, which stand where they always stand: the rest is not read.

    Raises
    ------
    NotDicom
        They are none.
    """
    if len(encoded) < _SHORTEST_REQUEST_BYTES:
        raise NotDicom("The association request is too short.")
    with any_error_as(NotDicom, "The association request cannot be read: {}."):
        request = A_ASSOCIATE_RQ()
        request.called_ae_title, request.calling_ae_title = encoded[10:26], encoded[26:42]
        return request.called_ae_title.strip(), request.calling_ae_title.strip()


def decode_request(encoded: bytes) -> Proposal:
    """Read an A-ASSOCIATE-RQ.

    Raises
    ------
    NotDicom
        It is none.
    """
    with any_error_as(NotDicom, "The association request cannot be read: {}."):
        request = A_ASSOCIATE_RQ()
        request.decode(encoded)
        primitive = request.to_primitive()
        return Proposal(
            request=request,
            primitive=primitive,
            called_ae_title=primitive.called_ae_title.strip(),
            calling_ae_title=primitive.calling_ae_title.strip(),
        )


def fault_of(proposal: Proposal) -> Refusal | None:
    """What is wrong with a request whoever sends it."""
    if not proposal.request.protocol_version & 1:
        return Refusal.PROTOCOL_VERSION
    if proposal.primitive.application_context_name != APPLICATION_CONTEXT:
        return Refusal.APPLICATION_CONTEXT
    return None


def agree(proposal: Proposal, services: Collection[str]) -> Agreement:
    """Accept storage of every kind, private and future classes too, verification, and the services that are named.

    Parameters
    ----------
    services
        SOP classes of normalized services. Of these the peer may be SCU, SCP or both; of storage it is the SCU.
    """
    proposed = proposal.primitive.presentation_context_definition_list
    results = [_judge(context, services) for context in proposed]
    accepted = {
        int(result.context_id or 0): AcceptedContext(
            sop_class_uid=SOPClassUID(str(context.abstract_syntax)),
            transfer_syntax=TransferSyntaxUID(str(result.transfer_syntax[0])),
            keeps=_is_storage(str(context.abstract_syntax)),
        )
        for context, result in zip(proposed, results, strict=True)
        if result.result == _ACCEPTED
    }
    answer = A_ASSOCIATE()
    answer.application_context_name = APPLICATION_CONTEXT
    answer.calling_ae_title = proposal.primitive.calling_ae_title
    answer.called_ae_title = proposal.primitive.called_ae_title
    answer.result = 0x00
    answer.result_source = 0x01
    answer.presentation_context_definition_results_list = results
    answer.user_information = [*ourselves(), *_roles(proposal, accepted, services)]
    encoded = A_ASSOCIATE_AC()
    encoded.from_primitive(answer)
    limit = int(proposal.primitive.maximum_length_received or 0)
    return Agreement(contexts=accepted, answer=encoded.encode(), maximum_pdu_bytes=limit)


def preferred_order(syntaxes: Sequence[UID]) -> list[UID]:
    """The proposed transfer syntaxes of one presentation context, those we would rather receive first."""
    rank = {syntax: place for place, syntax in enumerate(PREFERRED_SYNTAXES)}
    return sorted(syntaxes, key=lambda syntax: rank.get(syntax, len(rank)))


def _judge(context: PresentationContext, services: Collection[str]) -> PresentationContext:
    sop_class = str(context.abstract_syntax)
    syntaxes = [syntax for syntax in preferred_order(context.transfer_syntax) if EXACT_UID.fullmatch(syntax)]
    answer = PresentationContext()
    answer.context_id = context.context_id
    answer.result = _ACCEPTED
    if sop_class == VERIFICATION or sop_class in services:
        syntaxes = [syntax for syntax in syntaxes if syntax in UNCOMPRESSED]
    elif not EXACT_UID.fullmatch(sop_class) or not _is_storage(sop_class):
        answer.result = _ABSTRACT_SYNTAX_NOT_SUPPORTED
    if answer.result == _ACCEPTED and not syntaxes:
        answer.result = _TRANSFER_SYNTAXES_NOT_SUPPORTED
    # The one of a refused context is not looked at, yet must stand there (PS3.8 9.3.3.2).
    answer.transfer_syntax = [*syntaxes[:1]] or [ImplicitVRLittleEndian]
    return answer


def _is_storage(sop_class: str) -> bool:
    # What pynetdicom does not know is private or newer than it: an object of some kind.
    return uid_to_service_class(sop_class) in {StorageServiceClass, ServiceClass}


def ourselves() -> list[MaximumLengthNotification | ImplementationClassUIDNotification | ImplementationVersionNameNotification]:
    """Say what a PDU sent to us may hold, and what we are (PS3.7 annex D.3.3)."""
    length, implementation, version = (
        MaximumLengthNotification(),
        ImplementationClassUIDNotification(),
        ImplementationVersionNameNotification(),
    )
    length.maximum_length_received = MAX_PDU_BYTES
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, implementation, version]


def _roles(
    proposal: Proposal, accepted: Mapping[int, AcceptedContext], services: Collection[str]
) -> list[SCP_SCU_RoleSelectionNegotiation]:
    classes = {str(context.sop_class_uid) for context in accepted.values()}
    answers = []
    for item in proposal.primitive.user_information:
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and str(item.sop_class_uid) in classes:
            answer = SCP_SCU_RoleSelectionNegotiation()
            answer.sop_class_uid = item.sop_class_uid
            answer.scu_role = bool(item.scu_role)
            answer.scp_role = bool(item.scp_role) and str(item.sop_class_uid) in services
            answers.append(answer)
    return answers
