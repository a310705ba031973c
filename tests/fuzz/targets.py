"""All targets, by name."""

from typing import Final

from tests.fuzz import answers, associations, images, messages, objects
from tests.fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in (
        associations.ASSOCIATION,
        associations.COMMAND,
        associations.CONVERSATION,
        objects.IDENTITY,
        objects.FOUND,
        images.PIXELS,
        images.ANALYSIS,
        images.OUTPUTS,
        messages.MESSAGES,
        answers.PEER,
        answers.WEB,
    )
}
