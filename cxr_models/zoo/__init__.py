"""The models that ship with the package, each a folder here."""

from pathlib import Path

from cxr_models.errors import UnknownModel

HERE = Path(__file__).parent


def shipped_models() -> tuple[str, ...]:
    """Return the names of the models in the package, sorted."""
    return tuple(sorted(card.parent.name for card in HERE.glob("*/card.json")))


def find_model(name_or_folder: str) -> Path:
    """Return the folder of a shipped model by its name, or of any model by its path; a shipped name comes first.

    Raises
    ------
    UnknownModel
        It is neither.
    """
    shipped = shipped_models()
    if name_or_folder in shipped:
        return HERE / name_or_folder
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    raise UnknownModel(
        f"There is no model {name_or_folder!r}: it is no folder, and the models that ship are {', '.join(shipped)}."
    )
