"""Figures that several processes count together."""

import subprocess
import sys

from worker.metrics import Metrics
from worker.tally import tally

_PROGRAM = """
import os, sys
from pathlib import Path
from worker.metrics import Metrics
from worker.tally import count_in

folder, number, callers = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
count_in(folder, number)
metrics = Metrics(tally=folder)
for caller in callers:
    metrics.accepted(caller)
    metrics.stored(caller, 0.02, 0x0000, size=1000)
os._exit(9)
"""


def test_who_replaces_a_dead_one_goes_on_counting_and_holds_none_of_its_associations_open() -> None:
    with tally(3) as folder:
        told = Metrics(tally=folder).registry
        assert list(told.collect()) == []
        for number, callers in ((0, ["A"]), (1, ["A", "B"]), (1, ["A"])):
            command = [sys.executable, "-c", _PROGRAM, str(folder), str(number), *callers]
            assert subprocess.run(command, check=False).returncode == 9
        assert told.get_sample_value("cxr_associations_accepted_total", {"caller": "A"}) == 3
        assert told.get_sample_value("cxr_received_bytes_total", {"caller": "B"}) == 1000
        assert told.get_sample_value("cxr_store_seconds_bucket", {"caller": "A", "le": "0.025"}) == 3
        assert told.get_sample_value("cxr_associations_open") == 2  # of 0, and of the second 1
    assert not folder.exists()


def test_a_process_beside_leaves_the_files_while_their_maker_lives() -> None:
    program = """
import os
from worker.tally import tally

with tally(1) as folder:
    if os.fork():
        os.wait()
        print(sorted(path.name for path in folder.iterdir()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['counter_0.db', 'gauge_sum_0.db', 'histogram_0.db']\n"
