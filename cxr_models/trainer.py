"""Lightning's trainer for a recipe: what it runs on, what it keeps, and when it stops."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import TensorBoardLogger
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cxr_models.errors import InvalidData, InvalidRecipe, UnknownDevice
from cxr_models.recipe import FILES, Metric, Recipe, as_written

LAST = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a training runs on, in Lightning's words, and whether it goes on or only tries.

    Attributes
    ----------
    deterministic
        Fail where torch has no way to compute that always gives the same; otherwise it warns.
    resume
        Go on from the last checkpoints in the output folder.
    fast_dev_run
        One batch of everything; keeps no checkpoints.
    """

    accelerator: str = "auto"
    devices: str = "1"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    deterministic: bool = False
    resume: bool = False
    fast_dev_run: bool = False


class History(Checkpoint):
    """Keeps what was logged of each epoch as plain numbers. A kind of checkpoint: Lightning calls these after all is logged."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the epoch's metrics; those of validation are there by now."""
        del pl_module
        metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.epochs.append({"epoch": trainer.current_epoch, "learning_rate": rate} | metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs so far, for a checkpoint."""
        return {"epochs": list(self.epochs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the epochs of a checkpoint."""
        self.epochs = list(state_dict["epochs"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A trainer for one seed, the callbacks that are asked afterwards, and the checkpoint to go on from.

    Without validation images there is no best epoch.
    """

    trainer: lightning.Trainer
    best: ModelCheckpoint | None
    history: History
    resumed: Path | None


def prepare_run(recipe: Recipe, *, machine: Machine, output: Path, validates: bool) -> Run:
    """Make a trainer that logs to `output`/logs and keeps last.ckpt and the best one in `output`/checkpoints.

    Parameters
    ----------
    validates
        Whether there are validation images. Without any, all epochs are trained, and the last one alone is kept.

    Raises
    ------
    UnknownDevice
        Lightning knows no such machine.
    InvalidRecipe
        The checkpoint to go on from is of another recipe.
    """
    folder = output / "checkpoints" / f"seed-{recipe.seed}"
    resumed = _last(folder, recipe=recipe) if machine.resume else None
    if resumed is None:
        for old in folder.glob("*.ckpt"):
            old.unlink()
    best = _best(recipe, folder) if validates else None
    history = History()
    callbacks: list[Callback] = [
        *([_stopping(recipe)] if validates else []),
        RichProgressBar(console_kwargs={"stderr": True}),
        history,
        *([best] if best else []),
        ModelCheckpoint(folder, filename=LAST, enable_version_counter=False),
    ]
    if recipe.average:
        # All weights in one call: Lightning's own EMA callback goes through them one by one.
        callbacks.append(WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(recipe.average)))  # type: ignore[no-untyped-call]
    try:
        trainer = lightning.Trainer(
            accelerator=machine.accelerator,
            devices=machine.devices,
            num_nodes=machine.num_nodes,
            strategy=machine.strategy,
            precision=machine.precision,  # type: ignore[arg-type]  # checked by Lightning, which names the choices
            max_epochs=recipe.epochs,
            callbacks=callbacks,
            logger=TensorBoardLogger(output / "logs", name=f"seed-{recipe.seed}"),
            fast_dev_run=machine.fast_dev_run,
            limit_val_batches=1.0 if validates else 0,
            log_every_n_steps=1,
            deterministic=machine.deterministic or "warn",
            use_distributed_sampler=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UnknownDevice(f"Lightning cannot train like this: {error}") from error
    return Run(trainer=trainer, best=best, history=history, resumed=resumed)


def _stopping(recipe: Recipe) -> EarlyStopping:
    stop_on = recipe.stop_on or recipe.monitor
    return EarlyStopping(stop_on, mode=mode(stop_on), min_delta=recipe.min_delta, patience=recipe.patience)


def _best(recipe: Recipe, folder: Path) -> ModelCheckpoint:
    name = f"model-{{epoch:02d}}-{{{recipe.monitor}:.2f}}"
    # Not save_weights_only: Lightning leaves the averaged weights, which were validated, out of such checkpoints.
    return ModelCheckpoint(
        folder, filename=name, monitor=recipe.monitor, mode=mode(recipe.monitor), enable_version_counter=False
    )


def check_resumable(output: Path) -> None:
    """Raise InvalidData where no training can go on."""
    if not list(output.glob(f"checkpoints/*/{LAST}.ckpt")):
        raise InvalidData(f"There is no training to resume: {output / 'checkpoints'} holds no {LAST}.ckpt; leave out --resume.")


def mode(metric: Metric) -> Literal["min", "max"]:
    """Return in which direction a metric gets better."""
    return "min" if metric == "valid_loss" else "max"


def _last(folder: Path, *, recipe: Recipe) -> Path | None:
    last = folder / f"{LAST}.ckpt"
    if not last.exists():
        return None
    written = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["hyper_parameters"]["recipe"]
    written |= {key: Path(written[key]).name for key in FILES if written.get(key)}  # a file may lie elsewhere by now
    differing = sorted(key for key, value in as_written(recipe).items() if written.get(key) != value and key != "epochs")
    if differing:
        raise InvalidRecipe(f"{last} is of a recipe with other values of {', '.join(differing)}; leave out --resume.")
    return last
