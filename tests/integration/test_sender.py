"""The sending end against real peers: what is proposed, what travels, and what each answer means."""

import socket
from contextlib import closing
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io import requestor
from dicom_io.errors import AssociationRejected, ObjectRefused, PeerBusy, PeerRefused, PeerUnavailable, PeerUnreachable
from dicom_io.sender import echo, send
from dicom_io.values import Peer
from tests.factories import make_dx, make_study, write
from tests.fakes import FakePacs, encoded, fake_pacs, free_port

US = "CXRWORKER"


def _peer(pacs: FakePacs) -> Peer:
    return Peer(ae_title="PACS", host="127.0.0.1", port=pacs.port)


def _written(tmp_path: Path, count: int = 2) -> list[Path]:
    return [write(ds, tmp_path / f"{number}.dcm") for number, ds in enumerate(make_study(views=("PA",) * count))]


def test_files_arrive_byte_for_byte_in_order_under_our_title(tmp_path: Path, pacs: FakePacs) -> None:
    study = make_study(views=("PA", "AP", "LL"))
    paths = [write(ds, tmp_path / f"{number}.dcm") for number, ds in enumerate(study)]
    outcomes = list(send(_peer(pacs), paths, calling_ae_title=US))
    assert [(outcome.path, outcome.error) for outcome in outcomes] == [(path, None) for path in paths]
    assert pacs.encoded == [encoded(ds) for ds in study]
    assert pacs.calling_ae_titles == [US]


def test_only_what_is_sent_is_proposed_as_it_lies_on_disk_and_in_the_default_syntax(tmp_path: Path, pacs: FakePacs) -> None:
    ds = make_dx()
    list(send(_peer(pacs), [write(ds, tmp_path / "image.dcm")], calling_ae_title=US))
    assert pacs.proposed == [{(ds.SOPClassUID, ExplicitVRLittleEndian), (ds.SOPClassUID, ImplicitVRLittleEndian)}]


@pytest.mark.parametrize("status", [0x0001, 0x0107, 0xB000, 0xB006, 0xB007, 0xB123])
def test_a_warning_means_stored(tmp_path: Path, pacs: FakePacs, status: int) -> None:
    pacs.status = status
    (outcome,) = send(_peer(pacs), _written(tmp_path, 1), calling_ae_title=US)
    assert outcome.error is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0xA700, PeerBusy),
        (0xA7FF, PeerBusy),
        (0xA900, ObjectRefused),
        (0xC000, ObjectRefused),
        (0x0122, ObjectRefused),
        (0x0110, PeerRefused),
    ],
)
def test_a_failure_names_its_status_and_the_next_file_is_still_sent(
    tmp_path: Path, pacs: FakePacs, status: int, kind: type[Exception]
) -> None:
    pacs.status = status
    outcomes = list(send(_peer(pacs), _written(tmp_path), calling_ae_title=US))
    assert [type(outcome.error) for outcome in outcomes] == [kind, kind]
    assert f"0x{status:04X}" in str(outcomes[0].error)
    assert len(pacs.encoded) == 2


def test_a_peer_that_is_not_there_is_unavailable_for_every_file(tmp_path: Path) -> None:
    paths = _written(tmp_path)
    nobody = Peer(ae_title="PACS", host="127.0.0.1", port=free_port())
    outcomes = list(send(nobody, paths, calling_ae_title=US))
    assert [outcome.path for outcome in outcomes] == paths
    assert all(isinstance(outcome.error, PeerUnreachable) for outcome in outcomes)


def test_a_peer_that_accepts_connections_and_says_nothing_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requestor, "ANSWER_SECONDS", 0.3)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        mute = Peer(ae_title="PACS", host="127.0.0.1", port=silent.getsockname()[1])
        (outcome,) = send(mute, _written(tmp_path, 1), calling_ae_title=US)
    assert isinstance(outcome.error, PeerUnavailable)


def test_a_peer_that_knows_us_not_refuses(tmp_path: Path) -> None:
    with fake_pacs(require_called=True) as pacs:
        stranger = Peer(ae_title="NOT-ITS-NAME", host="127.0.0.1", port=pacs.port)
        (outcome,) = send(stranger, _written(tmp_path, 1), calling_ae_title=US)
        assert isinstance(outcome.error, AssociationRejected)
        assert "rejected the association" in str(outcome.error)
        assert "Called AE title" in str(outcome.error)


def test_a_peer_that_takes_no_such_object_refuses(tmp_path: Path) -> None:
    with fake_pacs(syntaxes=[ExplicitVRBigEndian]) as pacs:
        outcomes = list(send(_peer(pacs), _written(tmp_path), calling_ae_title=US))
    assert [type(outcome.error) for outcome in outcomes] == [ObjectRefused] * 2
    assert str(outcomes[0].error) == (
        "The peer does not accept Digital X-Ray Image Storage - For Presentation in Explicit VR Little Endian,"
        " nor in Implicit VR Little Endian."
    )


def test_an_object_the_peer_does_not_take_is_refused_and_the_others_are_sent(tmp_path: Path, pacs: FakePacs) -> None:
    private, usual = make_study(views=("PA", "PA"))
    private.SOPClassUID = private.file_meta.MediaStorageSOPClassUID = "1.2.826.0.1.3680043.10.9999.7"
    paths = [write(private, tmp_path / "private.dcm"), write(usual, tmp_path / "usual.dcm")]
    first, second = send(_peer(pacs), paths, calling_ae_title=US)
    assert isinstance(first.error, ObjectRefused)
    assert "does not accept" in str(first.error)
    assert second.error is None


def test_a_peer_that_breaks_off_leaves_the_rest_unavailable(tmp_path: Path, pacs: FakePacs) -> None:
    paths = _written(tmp_path, 3)
    outcomes = send(_peer(pacs), paths, calling_ae_title=US)
    assert next(outcomes).error is None
    pacs.abort()
    rest = list(outcomes)
    assert [outcome.path for outcome in rest] == paths[1:]
    assert all(isinstance(outcome.error, PeerUnavailable) for outcome in rest)
    assert not any(isinstance(outcome.error, PeerUnreachable) for outcome in rest), "it was reached"


@pytest.mark.parametrize("content", [None, b"", b"nonsense" * 100, bytes(128) + b"DICM"])
def test_a_file_that_cannot_be_read_fails_alone(tmp_path: Path, pacs: FakePacs, content: bytes | None) -> None:
    (good,) = _written(tmp_path, 1)
    bad = tmp_path / "bad.dcm"
    if content is not None:
        bad.write_bytes(content)
    outcomes = {outcome.path: outcome.error for outcome in send(_peer(pacs), [bad, good], calling_ae_title=US)}
    assert outcomes[good] is None
    assert isinstance(outcomes[bad], PeerRefused)
    assert str(outcomes[bad]).startswith("Our own file cannot be read")


@pytest.mark.parametrize("host", ["pacs..local", f"{'p' * 64}.local"])
def test_a_name_that_no_host_has_is_unreachable(host: str) -> None:
    with pytest.raises(PeerUnreachable, match="no host has this name"):
        echo(Peer(ae_title="PACS", host=host, port=104), calling_ae_title=US)


def test_nothing_to_send_calls_nobody(pacs: FakePacs) -> None:
    assert list(send(_peer(pacs), [], calling_ae_title=US)) == []
    assert pacs.proposed == []


def test_echo_is_silent_when_the_peer_answers(pacs: FakePacs) -> None:
    echo(_peer(pacs), calling_ae_title=US)


def test_echo_tells_who_is_not_there() -> None:
    port = free_port()
    with pytest.raises(PeerUnavailable, match=f"PACS at 127.0.0.1:{port} does not answer"):
        echo(Peer(ae_title="PACS", host="127.0.0.1", port=port), calling_ae_title=US)


def test_echo_tells_who_rejects_us() -> None:
    with fake_pacs(require_called=True) as pacs, pytest.raises(PeerRefused, match="rejected"):
        echo(Peer(ae_title="OTHER", host="127.0.0.1", port=pacs.port), calling_ae_title=US)
