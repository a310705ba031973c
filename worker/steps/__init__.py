"""The steps of the path, each from one frozen value to the next. `worker.pipeline` says in which order."""
