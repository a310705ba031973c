"""How a connection ends that is not ended by a release: in a short name, and in words that say what to look at."""

from dataclasses import dataclass

from dicom_io.negotiation import Refusal
from dicom_io.wire import AbortReason, PeerAborted, ProtocolError, Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a connection was broken off, by us or by the peer."""

    reason: str
    """One of a few short names."""
    words: str
    answer: AbortReason | None = None
    """What the peer is told in an A-ABORT; None where there is nobody to tell."""
    is_rejection: bool = False
    """Whether it was not let in, for one of the reasons of `Keeper.rejected`."""


IDLE = Ending(
    reason="idle", words="it asked for nothing more and did not release the association", answer=AbortReason.NOT_SPECIFIED
)
STALLED = Ending(
    reason="stalled", words="it stopped, or was too slow, in the middle of a message", answer=AbortReason.NOT_SPECIFIED
)
UNASKED = Ending(
    reason="stalled", words="it stopped in the middle of its association request", answer=AbortReason.NOT_SPECIFIED
)
CROWDED = Ending(
    reason="crowded",
    words="too many connections stopped in the middle of their association request, most of them from its address",
    answer=AbortReason.NOT_SPECIFIED,
)
PEER_ABORTED = Ending(reason="peer_aborted", words="it broke the association off in the middle of a message")
PEER_CLOSED = Ending(reason="peer_closed", words="it ended the connection in the middle of a message")
PEER_LEFT = Ending(reason="peer_closed", words="it ended the connection in the middle of its association request")
STOPPED = Ending(reason="stopped", words="the worker was told to stop and waited no longer")
ERROR = Ending(reason="error", words="an error of ours, which the log has", answer=AbortReason.NOT_SPECIFIED)
STRANGER = Ending(reason="address", words=Refusal.ADDRESS.words, is_rejection=True)


def of_protocol(error: ProtocolError) -> Ending:
    """How a connection ends whose peer does not keep to the protocol."""
    return Ending(reason="protocol", words=f"it does not keep to the protocol: {error}", answer=error.reason)


def of_association(error: Exception, wire: Wire) -> Ending | None:
    """How an association ends over an error that its acceptor raised; None where the peer left between two messages."""
    match error:
        case ProtocolError():
            return of_protocol(error)
        case TimeoutError():
            return IDLE if wire.is_between_messages else STALLED
        case PeerAborted():
            return PEER_ABORTED
        case OSError():
            return None if wire.is_between_messages else PEER_CLOSED
        case _:
            return ERROR
