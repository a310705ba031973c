"""What we send is told in a transfer syntax that the destination takes, and is the same object in each."""

import struct
from contextlib import ExitStack
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_io.errors import NotDicom, ObjectRefused, PeerRefused
from dicom_io.implicit import to_implicit
from dicom_io.kinds import Kind
from dicom_io.payload import encode_payload
from dicom_io.sender import StoreOutcome, send
from dicom_io.values import Peer
from tests.committing import committing_pacs
from tests.factories import dicom_folder, make_dx, make_study, study_uid, write
from tests.fakes import encoded, fake_pacs, make_site
from tests.servers import storescp
from worker.commitment import request_commitment
from worker.db.database import Database
from worker.destination import Destination


def kept_in(folder: Path) -> dict[str, Dataset]:
    """What a storescp has written, by SOP Instance UID."""
    return {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, folder.iterdir())}


def made_by(data_dir: Path) -> dict[str, Path]:
    """The worker's reports, by SOP Instance UID."""
    return {str(pydicom.dcmread(path).SOPInstanceUID): path for path in (data_dir / "reports").rglob("*.dcm")}


def sent_to(port: int, *paths: Path) -> list[StoreOutcome]:
    return list(send(Peer(ae_title="PACS", host="127.0.0.1", port=port), paths, calling_ae_title="CXRWORKER"))


def test_every_output_reaches_a_pacs_and_a_sender_that_take_implicit_vr_alone(database: Database, tmp_path: Path) -> None:
    folders = [tmp_path / "pacs", tmp_path / "sender"]
    with ExitStack() as stack:
        for folder in folders:
            folder.mkdir()
        pacs, back = (stack.enter_context(storescp("+xi", "+B", "-od", folder)) for folder in folders)
        known = {"host": "127.0.0.1", "outputs": tuple(Kind)}
        site = make_site(
            database,
            tmp_path / "var",
            destinations=(
                Destination(name="pacs", ae_title="PACS", port=pacs, **known),
                Destination(name="back", ae_title="MODALITY", port=back, to_sender=True, **known),
            ),
        )
        flagged, lateral = make_study("flagged", views=("PA",)), make_study("lateral", views=("LL",))
        site.engine.labels[flagged[0].SOPInstanceUID] = "Pneumonia"
        site.receive(*flagged, *lateral)
        site.settle()
        assert site.deliver() == 2 * len(Kind)
    made = made_by(site.parts.data_dir)
    assert len(made) == len(Kind)
    for kept in map(kept_in, folders):
        assert kept.keys() == made.keys()
        for uid, ds in kept.items():
            assert ds.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
            assert encode_payload(ds) == encode_payload(pydicom.dcmread(made[uid]))


@pytest.mark.parametrize(
    ("option", "syntax"),
    [("+xe", ExplicitVRLittleEndian), ("+x=", ExplicitVRLittleEndian), ("+xi", ImplicitVRLittleEndian)],
)
def test_the_bytes_on_disk_travel_wherever_they_are_taken(tmp_path: Path, option: str, syntax: str) -> None:
    ds = make_dx()
    (tmp_path / "kept").mkdir()
    with storescp(option, "+B", "-od", tmp_path / "kept") as port:
        (outcome,) = sent_to(port, write(ds, tmp_path / "image.dcm"))
    assert outcome.error is None
    (kept,) = kept_in(tmp_path / "kept").values()
    assert kept.file_meta.TransferSyntaxUID == syntax
    assert encode_payload(kept) == encode_payload(ds)


def test_a_peer_that_takes_explicit_vr_alone_is_sent_the_bytes_on_disk(tmp_path: Path) -> None:
    ds = make_dx()
    with fake_pacs(syntaxes=[ExplicitVRLittleEndian]) as pacs:
        (outcome,) = sent_to(pacs.port, write(ds, tmp_path / "image.dcm"))
        assert outcome.error is None
        assert pacs.encoded == [encoded(ds)]


def test_what_is_compressed_goes_as_it_is_or_not_at_all(tmp_path: Path) -> None:
    compressed = dicom_folder() / "hip_fuji_rg2_jpll.dcm"
    plain = write(make_dx(), tmp_path / "plain.dcm")
    words = (
        "The peer does not accept Computed Radiography Image Storage in JPEG Lossless, Non-Hierarchical, First-Order Prediction"
        " (Process 14 [Selection Value 1]), and it is sent in no other transfer syntax than its own."
    )
    with storescp("+xi", "--ignore") as port:
        (alone,) = sent_to(port, compressed)
        first, second = sent_to(port, compressed, plain)
    assert isinstance(alone.error, ObjectRefused)
    assert str(alone.error) == str(first.error) == words
    assert second.error is None
    with storescp("+xs", "--ignore") as port:
        assert [outcome.error for outcome in sent_to(port, compressed, plain)] == [None, None]


def test_a_damaged_file_is_not_mended_on_its_way_and_the_others_are_sent(tmp_path: Path) -> None:
    good = write(make_dx(), tmp_path / "good.dcm")
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(good.read_bytes()[:-1])
    with storescp("+xi", "--ignore") as port:
        first, second = sent_to(port, damaged, good)
    assert isinstance(first.error, PeerRefused)
    assert str(first.error) == "Our own file cannot be read: NotDicom."
    assert second.error is None


def test_a_pacs_that_takes_implicit_vr_alone_commits_to_the_same_object(database: Database, tmp_path: Path) -> None:
    with committing_pacs(syntaxes=[ImplicitVRLittleEndian]) as pacs:
        known = pacs.destination()
        site = make_site(database, tmp_path / "var", destinations=(known,))
        site.receive(make_dx())
        site.settle()
        assert site.deliver() == 1
        assert request_commitment(known, site.parts) == 1
    (report,) = site.study(study_uid())["reports"]
    (item,) = pacs.requests[0].ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID] == pacs.received == [report["sop_instance_uid"]]
    (delivery,) = site.study(study_uid())["deliveries"]
    assert (delivery["state"], delivery["committed"]) == ("delivered", True)


def explicit(vr: bytes, value: bytes, *, tag: tuple[int, int] = (0x0008, 0x0060), length: int | None = None) -> bytes:
    """An element in Explicit VR Little Endian."""
    size = len(value) if length is None else length
    if vr in {b"SQ", b"OB", b"UN"}:
        return struct.pack("<HH2sxxI", *tag, vr, size) + value
    return struct.pack("<HH2sH", *tag, vr, size) + value


UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_ENDS, SEQUENCE_ENDS = (
    struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED),
    struct.pack("<HHI", 0xFFFE, 0xE00D, 0),
    struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
)


def test_delimiters_become_lengths_and_group_lengths_go() -> None:
    inner = explicit(b"CS", b"DX")
    told = (
        explicit(b"UL", b"\x10\0\0\0", tag=(0x0008, 0x0000))
        + inner
        + explicit(b"SQ", ITEM + inner + ITEM_ENDS + SEQUENCE_ENDS, tag=(0x0040, 0xA730), length=UNDEFINED)
    )
    element = struct.pack("<HHI", 0x0008, 0x0060, 2) + b"DX"
    assert to_implicit(told) == (
        element
        + struct.pack("<HHI", 0x0040, 0xA730, 8 + len(element))
        + struct.pack("<HHI", 0xFFFE, 0xE000, len(element))
        + element
    )


@pytest.mark.parametrize(
    "damaged",
    [
        explicit(b"CS", b"DX", length=4),
        explicit(b"CS", b"DX")[:7],
        explicit(b"XX", b"DX"),
        explicit(b"OB", b"", length=UNDEFINED),
        explicit(b"UN", b"", length=UNDEFINED),
        explicit(b"SQ", explicit(b"CS", b"DX")),
        explicit(b"SQ", ITEM + explicit(b"CS", b"DX"), length=UNDEFINED),
        explicit(b"SQ", ITEM + ITEM_ENDS, length=UNDEFINED),
        explicit(b"SQ", ITEM, length=8) + ITEM_ENDS,
        explicit(b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 4), length=8) + explicit(b"CS", b""),
    ],
)
def test_what_does_not_end_where_it_should_is_not_told_at_all(damaged: bytes) -> None:
    with pytest.raises(NotDicom):
        to_implicit(damaged)
