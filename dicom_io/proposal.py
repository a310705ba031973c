"""What we ask for when we open an association, and what is answered (PS3.8 9.3.2 to 9.3.4)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from dicom_io.errors import NotDicom
from dicom_io.negotiation import ourselves
from dicom_io.values import SOPClassUID, TransferSyntaxUID

Context = tuple[SOPClassUID, TransferSyntaxUID]
"""A presentation context with its one transfer syntax."""
_NOT_NOW = (1, 2)
"""Results "user-rejection" and "no-reason (provider rejection)" (PS3.8 table 9-18)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What a peer accepted."""

    contexts: Mapping[Context, int]
    """The numbers of the presentation contexts that it takes."""
    not_now: Collection[Context]
    """Which it refuses as the user of its services, or without a reason, and not because it does not know them."""
    maximum_pdu_bytes: int
    """What a PDU sent to it may hold; 0: anything."""


def encode_proposal(called_ae_title: str, contexts: Sequence[Context], *, calling_ae_title: str) -> bytes:
    """The bytes of an A-ASSOCIATE-RQ; the number of the context at a place is 2 * place + 1."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title = calling_ae_title
    request.called_ae_title = called_ae_title
    proposed = []
    for place, (sop_class, syntax) in enumerate(contexts):
        context = PresentationContext()
        context.context_id = 2 * place + 1
        context.abstract_syntax = sop_class
        context.transfer_syntax = [syntax]
        proposed.append(context)
    request.presentation_context_definition_list = proposed
    request.user_information = [*ourselves()]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    encoded: bytes = pdu.encode()
    return encoded


def decode_acceptance(encoded: bytes, contexts: Sequence[Context]) -> Acceptance:
    """Read an A-ASSOCIATE-AC. pynetdicom raises what it likes over one that is damaged.

    Parameters
    ----------
    contexts
        What was proposed.

    Raises
    ------
    NotDicom
        It says nothing of them.
    """
    pdu = A_ASSOCIATE_AC()
    pdu.decode(encoded)
    answer = pdu.to_primitive()
    results = answer.presentation_context_definition_results_list
    if not results:
        raise NotDicom("An A-ASSOCIATE-AC answers nothing that was proposed.")
    accepted = {int(each.context_id or 0) for each in results if each.result == 0}
    not_now = {int(each.context_id or 0) for each in results if each.result in _NOT_NOW}
    return Acceptance(
        contexts={context: 2 * place + 1 for place, context in enumerate(contexts) if 2 * place + 1 in accepted},
        not_now=frozenset(context for place, context in enumerate(contexts) if 2 * place + 1 in not_now),
        maximum_pdu_bytes=int(answer.maximum_length_received or 0),
    )


def decode_rejection(encoded: bytes) -> str:
    """Read an A-ASSOCIATE-RJ; answer its result and reason in words. What pynetdicom raises is as above."""
    pdu = A_ASSOCIATE_RJ()
    pdu.decode(encoded)
    return f"{pdu.result_str}, {pdu.reason_str}"
