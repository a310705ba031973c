"""Select: which of the received objects may be analysed, by their headers."""

from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_io.eligibility import Verdict, judge
from dicom_io.errors import DicomError
from dicom_io.header import read_header
from dicom_io.sameness import same_content
from worker.values import ImageOutcome, StoredInstance

PATIENT_CONFLICT = (
    "Images with different Patient IDs or issuers arrived under this one Study Instance UID. Correct them at the "
    "sender and send the study again: content sent later under the same SOP Instance UIDs replaces this."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedImage:
    """A frontal chest radiograph by its header, or perhaps one where that is silent, to be decoded next."""

    instance: StoredInstance
    ds: Dataset
    verdict: Verdict


def of_one_patient(instances: tuple[StoredInstance, ...]) -> bool:
    """Whether the newest content of every image names the same patient. An issuer that is not named contradicts none."""
    newest = {instance.sop_instance_uid: instance for instance in instances}.values()
    issuers = {instance.issuer_of_patient_id for instance in newest} - {""}
    return len({instance.patient_id for instance in newest}) == 1 and len(issuers) <= 1


def newest_contents(instances: tuple[StoredInstance, ...]) -> tuple[list[StoredInstance], list[ImageOutcome]]:
    """One object for each SOP Instance UID, in order of arrival, and the outcomes of the others.

    A repetition in another transfer syntax is the same image: the first one stays. Other content under the same UID is a
    correction by the sender: the last one counts, and the rows stay flagged.
    """
    chosen: dict[str, StoredInstance] = {}
    set_aside = []
    for instance in instances:
        before = chosen.setdefault(instance.sop_instance_uid, instance)
        if before is instance:
            continue
        if same_content(before.path, instance.path):
            set_aside.append(refused(instance, code="repeated", reason="The same image as before, in another encoding."))
        else:
            chosen[instance.sop_instance_uid] = instance
            set_aside.append(refused(before, code="replaced", reason="Other content came later under this SOP Instance UID."))
    return list(chosen.values()), set_aside


def select(instance: StoredInstance, *, minimum_age_years: int = 0) -> SelectedImage | ImageOutcome:
    """Let an image pass, or say in words why it is not analysed."""
    try:
        ds = read_header(instance.path)
    except DicomError as error:
        return refused(instance, code="not_dicom", reason=str(error))
    verdict = judge(ds, minimum_age_years=minimum_age_years)
    if not (verdict.eligible or verdict.doubtful):
        return refused(instance, code=verdict.code, reason=verdict.reason)
    return SelectedImage(instance=instance, ds=ds, verdict=verdict)


def refused(instance: StoredInstance, *, code: str, reason: str) -> ImageOutcome:
    """The outcome of an image that is not analysed."""
    return ImageOutcome(instance=instance, eligible=False, reason_code=code, reason=reason, answer=None)
