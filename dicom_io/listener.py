"""The receiving end: an association acceptor for every storage class, and C-ECHO (PS3.4 annexes A and B, PS3.8)."""

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self, cast

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
from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import time by pynetdicom

from dicom_io.part10 import StoreRequest
from dicom_io.status import StoreStatus, status_of
from dicom_io.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_io.values import SOPClassUID, SOPInstanceUID, TransferSyntaxUID

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
MAX_PDU_BYTES = 128 * 1024
"""Large images arrive faster in large PDUs than in the usual 16 KB."""
_GRACE_SECONDS = 5.0
STALL_SECONDS = 20.0
"""How long a sender may be silent in the middle of something."""

# Private and future storage classes are kept too. pynetdicom offers this only as a switch for the whole process.
_config.UNRESTRICTED_STORAGE_SERVICE = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """Where to listen and to whom."""

    ae_title: str
    host: str
    port: int
    """0 takes a free one."""
    calling_ae_titles: tuple[str, ...] = ()
    """Empty: anybody."""
    maximum_associations: int = 64


class Listener:
    """A running acceptor. Leave the context, or `close`, to stop it."""

    def __init__(self, server: Any, ae: AE) -> None:
        self._server = server
        self._ae = ae

    @property
    def port(self) -> int:
        """The TCP port that is bound."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Accept no more; open associations get a few seconds to finish, then they are aborted."""
        self._server.shutdown()
        deadline = monotonic() + _GRACE_SECONDS
        while self._ae.active_associations and monotonic() < deadline:
            sleep(0.05)
        self._ae.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def listen(
    settings: ListenerSettings,
    *,
    on_store: Callable[[StoreRequest], None],
    on_refused: Callable[[StoreRequest, StoreStatus, BaseException], None],
    on_rejected: Callable[[str, str], None] = lambda _calling_ae_title, _peer_address: None,
) -> Listener:
    """Start accepting associations in threads of their own.

    Parameters
    ----------
    settings
        Address, AE title and who may call.
    on_store
        Makes an object durable. Returning means 0x0000; an error becomes a status by `status_of`.
    on_refused
        Told of every object that was not kept, with the status answered.
    on_rejected
        Told of every association that was rejected: calling AE title and address.

    Raises
    ------
    OSError
        The port cannot be bound.
    """
    ae = AE(ae_title=settings.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = MAX_PDU_BYTES
    ae.maximum_associations = settings.maximum_associations
    ae.require_calling_aet = list(settings.calling_ae_titles)
    ae.network_timeout = 60
    ae.acse_timeout = STALL_SECONDS
    ae.add_supported_context(Verification)

    def store(event: evt.Event) -> int:
        request = _request_of(event)
        try:
            on_store(request)
        except Exception as error:  # noqa: BLE001  the C-STORE boundary: the sender always gets a status
            status = status_of(error)
            on_refused(request, status, error)
            return status
        return StoreStatus.SUCCESS

    def rejected(event: evt.Event) -> None:
        on_rejected(event.assoc.requestor.ae_title.strip(), str(event.assoc.requestor.address))

    server = ae.start_server(
        (settings.host, settings.port),
        block=False,
        evt_handlers=[
            (evt.EVT_CONN_OPEN, tune_socket),
            (evt.EVT_REQUESTED, _prefer_syntaxes),
            (evt.EVT_REJECTED, rejected),
            (evt.EVT_C_STORE, store),
        ],
    )
    return Listener(server, ae)


def preferred_order(syntaxes: list[UID]) -> list[UID]:
    """The proposed transfer syntaxes of one presentation context, those we would rather receive first."""
    rank = {syntax: place for place, syntax in enumerate(PREFERRED_SYNTAXES)}
    return sorted(syntaxes, key=lambda syntax: rank.get(syntax, len(rank)))


def _prefer_syntaxes(event: evt.Event) -> None:
    # pynetdicom takes the first syntax of each proposed context, so the order is the choice.
    requested = event.assoc.requestor.primitive
    for context in requested.presentation_context_definition_list if requested else []:
        context.transfer_syntax = [*preferred_order(context.transfer_syntax)]


def tune_socket(event: evt.Event) -> None:
    """Send at once, and wait for no peer for ever.

    Nagle's algorithm holds small messages back for the peer's delayed ACK, 40 ms an object. And pynetdicom takes the timeout
    off a connected socket: a peer that stops in the middle of a PDU, or stops reading, would hold its association for good.
    """
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        with suppress(OSError):
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            transport.socket.settimeout(STALL_SECONDS)


def _request_of(event: evt.Event) -> StoreRequest:
    request = cast("C_STORE", event.request)
    requestor = event.assoc.requestor
    called = requestor.primitive.called_ae_title if requestor.primitive else ""
    return StoreRequest(
        sop_class_uid=SOPClassUID(str(request.AffectedSOPClassUID)),
        sop_instance_uid=SOPInstanceUID(str(request.AffectedSOPInstanceUID)),
        transfer_syntax=TransferSyntaxUID(str(event.context.transfer_syntax)),
        dataset=event.encoded_dataset(include_meta=False),
        calling_ae_title=requestor.ae_title.strip(),
        called_ae_title=called.strip(),
        peer_address=str(requestor.address),
    )
