"""What runs when: APScheduler drives the steps, night work and each destination's deliveries."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from threading import Event, Lock

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from worker import pipeline
from worker.audit.job import Auditor
from worker.commitment import request_commitment
from worker.contact import Contact
from worker.db import analyses, commitments, delivering, evidence
from worker.destination import Destination
from worker.keeping.orphans import Fate, mend
from worker.keeping.retention import retain
from worker.log import traceback_of
from worker.pipeline import Parts
from worker.questions import ask_about_studies, next_question
from worker.registry import active_identity
from worker.settings import SenderSettings

log = structlog.get_logger()

STUDIES = "studies"
NIGHTLY = "nightly"
MEND = "mend"
RETAIN = "retain"
_RETAIN_EVERY = timedelta(hours=1)
_LOOK_EVERY = timedelta(seconds=30)
"""How often it is looked whether so little is free that files are to go before the hour is over."""
AUDIT = "audit"
_AUDIT_SECONDS = 5.0
_CLOCK_SLACK = timedelta(seconds=1)
_KEPT = timedelta(days=30)
"""What others said of studies, and what destinations were asked and have answered."""


class Schedule:
    """The running scheduler.

    Each job asks the database what is due, and goes on until nothing is. The interval is a safety net: `wake` and the end of
    a step start the next at once, and a study's quiet time or a delivery's next attempt starts it on the dot.
    `turned` is told of each turn of the steps up to reporting, however it ended.
    """

    def __init__(self, parts: Parts, *, turned: Callable[[], None] = lambda: None) -> None:
        self._parts = parts
        self._turned = turned
        # Each job may run while its successor waits; a destination that hangs must not take another one's thread.
        self._threads = ThreadPoolExecutor(2 * (5 + len(parts.settings.destinations) + len(parts.settings.study.senders)))
        self._scheduler = BackgroundScheduler(timezone="UTC", executors={"default": self._threads})
        self._closing = Event()
        self._auditor = Auditor(parts)
        self._steps: dict[str, timedelta] = {}
        interval = parts.settings.schedule.interval_seconds
        self._add_steps(STUDIES, self._advance, interval)
        for destination in parts.settings.destinations:
            self._add_steps(_job_of(destination), self._deliverer(destination), interval)
        for sender in parts.settings.study.senders:
            if sender.query is not None:
                self._add_steps(_question_of(sender), self._asker(sender), interval)
        self._scheduler.add_job(
            self._guarded(MEND, self._mend), "interval", days=1, id=MEND, misfire_grace_time=None, next_run_time=parts.clock()
        )
        if parts.settings.keeping.deletes:
            self._add_steps(RETAIN, self._retainer(), _LOOK_EVERY.total_seconds())
        if parts.settings.audit is not None:
            self._add_steps(AUDIT, self._tell_auditor, _AUDIT_SECONDS)
        if parts.settings.schedule.reprocess:
            self._scheduler.add_job(
                self._guarded(NIGHTLY, self._reprocess),
                CronTrigger.from_crontab(parts.settings.schedule.reprocess_cron),  # local time
                id=NIGHTLY,
                coalesce=True,
                misfire_grace_time=3600,
            )

    def start(self) -> None:
        """Start the jobs, each at once. What a runner before this one had claimed is due again."""
        with self._parts.database.write() as connection:
            analyses.release(connection)
        self._scheduler.start()

    def close(self) -> None:
        """Let running jobs finish what is in hand, start no more."""
        self._closing.set()
        # shutdown(wait=True) would wait under the lock that a running job needs to wake another.
        self._scheduler.shutdown(wait=False)
        self._threads.shutdown(wait=True)

    def wake(self, job: str = STUDIES) -> None:
        """Run a job now; while it runs, once more afterwards."""
        with suppress(JobLookupError):  # closed meanwhile
            self._scheduler.modify_job(job, next_run_time=self._parts.clock())

    def keep_time(self) -> None:
        """Mend what a step of the clock did: run the steps now whose next time is further ahead than their interval."""
        for name, interval in self._steps.items():
            job = self._scheduler.get_job(name)
            if job is not None and job.next_run_time > self._parts.clock() + interval + _CLOCK_SLACK:
                log.warning("clock.set_back", step=name)
                self.wake(name)
        self._scheduler.wakeup()  # it may sleep as long as the clock was set back for, though that was undone since

    def _add_steps(self, job: str, step: Callable[[], None], interval: float) -> None:
        self._steps[job] = timedelta(seconds=interval)
        # Two instances: the second waits for the first one's lock, so that a wake during a run is not lost.
        self._scheduler.add_job(
            self._guarded(job, step),
            "interval",
            seconds=interval,
            id=job,
            max_instances=2,
            coalesce=True,
            misfire_grace_time=None,
            next_run_time=self._parts.clock(),
        )

    def _start_at(self, job: str, moment: datetime) -> None:
        self._scheduler.add_job(
            self.wake, "date", run_date=moment, args=[job], id=f"{job} due", replace_existing=True, misfire_grace_time=None
        )

    def _advance(self) -> None:
        while not self._closing.is_set() and self._turn():
            for destination in self._parts.settings.destinations:
                self.wake(_job_of(destination))
        self._come_back(STUDIES, pipeline.next_completion(self._parts))
        for sender in self._parts.settings.study.senders:
            self._come_back(_question_of(sender), next_question(sender, self._parts))

    def _turn(self) -> bool:
        try:
            return pipeline.advance(self._parts)
        finally:
            self._turned()

    def _tell_auditor(self) -> None:
        while not self._closing.is_set() and self._auditor.tell():
            pass

    def _asker(self, sender: SenderSettings) -> Callable[[], None]:
        def run() -> None:
            if ask_about_studies(sender, self._parts):
                self.wake()

        return run

    def _deliverer(self, destination: Destination) -> Callable[[], None]:
        contact = Contact(destination, self._parts)

        def run() -> None:
            while not self._closing.is_set() and self._deliver_once(destination):
                pass
            if contact.renew():
                self.wake(_job_of(destination))
            with self._parts.database.read() as connection:
                due = delivering.next_due(connection, destination.name)
            self._come_back(_job_of(destination), min(filter(None, (due, contact.next_echo)), default=None))

        return run

    def _deliver_once(self, destination: Destination) -> bool:
        sent = pipeline.deliver_reports(destination, self._parts)
        asked = request_commitment(destination, self._parts)
        return sent + asked > 0

    def _come_back(self, job: str, moment: datetime | None) -> None:
        """Start a job at a moment that comes before its next interval."""
        interval = timedelta(seconds=self._parts.settings.schedule.interval_seconds)
        if moment is not None and moment < self._parts.clock() + interval:
            self._start_at(job, moment)

    def _reprocess(self) -> None:
        with self._parts.database.read() as connection:
            model = active_identity(connection, self._parts.settings)
        count = pipeline.reprocess_outdated(self._parts, model)
        log.info("nightly.reprocess", count=count)
        if count:
            self.wake()

    def _mend(self) -> None:
        with self._parts.database.write() as connection:
            before = self._parts.clock() - _KEPT
            evidence.forget(connection, before=before)
            commitments.forget(connection, before=before)
        if mend(self._parts)[Fate.ENTERED]:
            self.wake()

    def _retainer(self) -> Callable[[], None]:
        settings = self._parts.settings
        last: datetime | None = None

        def run() -> None:
            nonlocal last
            now = self._parts.clock()
            free = shutil.disk_usage(settings.data_dir).free
            if free < settings.keeping.minimum_free_bytes or last is None or not last <= now < last + _RETAIN_EVERY:
                retain(self._parts.database, settings, clock=self._parts.clock)
                last = now

        return run

    def _guarded(self, step: str, run: Callable[[], None]) -> Callable[[], None]:
        lock = Lock()
        trouble = ""

        def guarded() -> None:
            nonlocal trouble
            with lock:
                if self._closing.is_set():
                    return
                try:
                    run()
                except Exception as error:  # noqa: BLE001  the step loop's boundary: the worker goes on
                    name = type(error).__name__
                    if trouble != name:  # once, not every second
                        log.error("step.failed", step=step, error=name, where=traceback_of(error))  # noqa: TRY400  no values
                    trouble = name
                else:
                    if trouble:
                        log.info("step.recovered", step=step)
                    trouble = ""

        return guarded


def _question_of(sender: SenderSettings) -> str:
    return f"ask for {sender.calling_ae_title}"


def _job_of(destination: Destination) -> str:
    return f"deliver {destination.name}"
