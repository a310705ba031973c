"""A worker is killed when it has asked for storage commitment and has not noted that it did."""

from pathlib import Path
from typing import Any

from tests.committing import CommittingPacs, committing_pacs
from tests.factories import make_dx, study_uid, write
from tests.requirements import need
from tests.servers import Worker, storescu, wait_for, worker

KILLED_AFTER = Path(__file__).with_name("killed_after.py")


def _config(pacs: CommittingPacs) -> str:
    return (
        "[study]\nquiet_seconds = 0.2\n"
        '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\n'
        f'port = {pacs.port}\noutputs = ["sr"]\nstorage_commitment = true\n'
    )


def _delivery(a_worker: Worker) -> dict[str, Any]:
    study = a_worker.study(study_uid())
    assert study is not None
    (delivery,) = study["deliveries"]
    return dict(delivery)


def test_the_report_is_sent_once_and_delivered_when_the_next_request_is_answered(tmp_path: Path) -> None:
    need("storescu")
    with committing_pacs() as pacs, worker(tmp_path, _config(pacs)) as a_worker:
        pacs.at_once = False
        a_worker.start(program=(str(KILLED_AFTER), "asked"))
        assert a_worker.process is not None
        assert storescu(a_worker.port, write(make_dx(), tmp_path / "image.dcm")).returncode == 0
        assert a_worker.process.wait(60) == -9
        assert len(pacs.requests) == 1
        assert (_delivery(a_worker)["state"], _delivery(a_worker)["committed"]) == ("stored", False)

        pacs.at_once = True
        a_worker.start()
        wait_for(lambda: _delivery(a_worker)["state"] == "delivered", "the commitment")
        assert a_worker.stop() == 0

        assert _delivery(a_worker)["committed"]
        assert len(pacs.received) == 1
        first, second = pacs.requests
        assert first.TransactionUID != second.TransactionUID
        assert first.ReferencedSOPSequence == second.ReferencedSOPSequence
        assert pacs.answered == [0x0000]
