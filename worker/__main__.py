"""``python -m worker`` is ``cxr-worker``."""

from worker.cli import main

main()
