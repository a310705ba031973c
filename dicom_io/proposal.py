"""What we ask for when we open an association (PS3.8 9.3.2)."""

from collections.abc import Sequence

from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from dicom_io.negotiation import ourselves
from dicom_io.values import SOPClassUID, TransferSyntaxUID

Context = tuple[SOPClassUID, TransferSyntaxUID]
"""A presentation context with its one transfer syntax."""


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
