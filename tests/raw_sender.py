"""Sends data sets as the bytes they are, broken ones too: what a careless modality would put on the wire."""

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset

from dicom_io.quiet import quietly

CR = "1.2.840.10008.5.1.4.1.1.1"
MADE_UP = "2.25.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawObject:
    """A data set's bytes and what the C-STORE command says of it."""

    name: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    dataset: bytes


def raw_object(path: Path) -> RawObject:
    """Take a file apart without parsing what it holds; without file meta, the command's UIDs come from the data set."""
    content = path.read_bytes()
    with quietly:
        if content[128:132] == b"DICM":
            meta, offset = split_dataset(path)
            if "MediaStorageSOPInstanceUID" in meta:
                return RawObject(
                    name=path.name,
                    sop_class_uid=str(meta.MediaStorageSOPClassUID),
                    sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
                    transfer_syntax=str(meta.TransferSyntaxUID),
                    dataset=content[offset:],
                )
        try:
            ds = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        except OSError:
            ds = pydicom.Dataset()
        return RawObject(
            name=path.name,
            sop_class_uid=str(ds.get("SOPClassUID", CR)),
            sop_instance_uid=str(ds.get("SOPInstanceUID", MADE_UP)),
            transfer_syntax=str(ImplicitVRLittleEndian),
            dataset=content,
        )


def send_raw(port: int, objects: Iterable[RawObject]) -> dict[str, int | None]:
    """Send over one association; answer the status of each by name, None where no context was accepted."""
    objects = list(objects)
    ae = AE(ae_title="CARELESS")
    for sop_class, syntax in sorted({(each.sop_class_uid, each.transfer_syntax) for each in objects}):
        ae.add_requested_context(sop_class, syntax)
    assoc = ae.associate("127.0.0.1", port, ae_title="CXRWORKER")
    assert assoc.is_established
    statuses: dict[str, int | None] = {}
    for each in objects:
        context = next(
            (
                context
                for context in assoc.accepted_contexts
                if (context.abstract_syntax, context.transfer_syntax[0]) == (each.sop_class_uid, each.transfer_syntax)
            ),
            None,
        )
        if context is None:
            statuses[each.name] = None
            continue
        request = C_STORE()
        request.MessageID = 1
        request.Priority = 2
        request.AffectedSOPClassUID = each.sop_class_uid
        request.AffectedSOPInstanceUID = each.sop_instance_uid
        request.DataSet = BytesIO(each.dataset)
        assoc._reactor_checkpoint.clear()  # noqa: SLF001  as send_c_store does, which insists on a data set that parses
        assoc.dimse.send_msg(request, context.context_id)
        _, answer = assoc.dimse.get_msg(block=True)
        assoc._reactor_checkpoint.set()  # noqa: SLF001
        assert answer is not None, f"no answer to {each.name}"
        statuses[each.name] = int(answer.Status)
    assoc.release()
    return statuses
