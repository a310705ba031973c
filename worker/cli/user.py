"""Who sits at the command line."""

import os
import pwd


def user_asking() -> str:
    """The account that runs this command, and the one that sudo was called from: for the record, not for access."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:  # a container's number without a name
        name = str(number)
    before = os.environ.get("SUDO_USER", "")
    return f"{name} for {before}" if before and before != name else name
