"""Better values for a recipe, found by cross-validation on the training side; a search that was ended goes on where it was."""

import csv
import json
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from cxr_models.catalogue import Catalogue
from cxr_models.crossvalidate import Plan, balanced_accuracy, duration, identify, plan_folds, train_fold
from cxr_models.errors import InvalidData, NonFiniteOutput
from cxr_models.predictions_file import PredictedImage
from cxr_models.recipe import Recipe, change_recipe
from cxr_models.teacher import read_teacher
from cxr_models.train import Machine

JOURNAL, TRIES, BEST = "journal.log", "tries.csv", "best.toml"
MOVES = {"rotate_degrees": 8.0, "translate": 0.1, "scale": 0.12, "stretch": 0.08}
GREYS = {"gamma": 0.3, "contrast": 0.3, "brightness": 0.1}
"""MOVES and GREYS: the augmentation where a recipe has none of the kind."""
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.2)
AVERAGES = (0.0, 0.99, 0.995, 0.998)
MIXUPS = (0.0, 0.1, 0.2, 0.4)
BALANCES = ("none", "class", "source")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a search ends: after so many minutes, or so many tries, those of earlier runs included; None is no limit."""

    minutes: float | None = None
    tries: int | None = None


def draw(trial: optuna.trial.BaseTrial, recipe: Recipe) -> Recipe:
    """Draw a recipe from the space around another.

    The learning rate is a quarter to four times the recipe's; moves and grey values are augmented up to twice as far; label
    smoothing is 0 to 0.2; weight decay, average, mixup and balance are of the short lists above. All else stays, but that one
    seed is trained.
    """

    def between(name: str, low: float, high: float, *, log: bool = False) -> float:
        return _rounded(trial.suggest_float(name, low, high, log=log))

    def one_of(name: str, choices: Sequence[float]) -> Any:
        return trial.suggest_categorical(name, sorted({*choices, getattr(recipe, name)}))

    strength = dict.fromkeys(MOVES, between("moves", 0, 2)) | dict.fromkeys(GREYS, between("greys", 0, 2))
    own = _own_augmentation(recipe)
    augmentation = {name: _rounded(own[name] * factor) for name, factor in strength.items()}
    return change_recipe(
        recipe,
        learning_rate=_rounded(recipe.learning_rate * between("learning_rate_factor", 0.25, 4, log=True)),
        label_smoothing=between("label_smoothing", 0, max(0.2, recipe.label_smoothing)),
        weight_decay=one_of("weight_decay", WEIGHT_DECAYS),
        average=one_of("average", AVERAGES),
        mixup=one_of("mixup", MIXUPS),
        balance=trial.suggest_categorical("balance", BALANCES),
        augmentation=recipe.augmentation.model_dump() | augmentation,
        attempts=1,
    )


def search(catalogue: Catalogue, *, plan: Plan, machine: Machine, output: Path, budget: Budget) -> list[dict[str, Any]]:
    """Try recipes drawn around `plan.recipe`, itself first, and write tries.csv and best.toml after each.

    What is made large is the mean over the sources of the cross-validated balanced accuracy. After each fold a try that is
    below the median of the others is given up. Images of test folders, and what shares a film with one, decide nothing.

    Returns
    -------
    list[dict[str, Any]]
        The tries as tries.csv has them, in their order.

    Raises
    ------
    InvalidData
        `output` holds a search from another recipe or on other images.
    """
    planned = plan_folds(catalogue, plan)
    study = _open_study(output, identity=identify(plan, planned), seed=plan.seed)
    if not study.trials:
        study.enqueue_trial(own_values(plan.recipe))
    teacher = read_teacher(plan.recipe)
    started = time.monotonic()
    deadline = started + 60 * budget.minutes if budget.minutes is not None else float("inf")

    def objective(trial: optuna.Trial) -> float:
        recipe = draw(trial, plan.recipe)
        rows: list[PredictedImage] = []
        for step, fold in enumerate(planned, start=1):
            with tempfile.TemporaryDirectory() as folder:
                predicted, _ = train_fold(fold, recipe=recipe, machine=machine, output=Path(folder), teacher=teacher)
            rows += predicted
            score = mean_over_sources(rows)
            trial.report(score, step)
            log.info("try %d, fold %d of %d: %.4f", trial.number, step, len(planned), score)
            late = time.monotonic() > deadline and any(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
            if step < len(planned) and (late or trial.should_prune()):
                raise optuna.TrialPruned
        return score

    def told(study: optuna.Study, trial: FrozenTrial) -> None:
        del trial
        _write(output, study=study, plan=plan)
        log.info("%s", _progress(study, budget=budget, deadline=deadline))
        if time.monotonic() > deadline:
            study.stop()

    left = None if budget.tries is None else max(0, budget.tries - len(_ended(study)))
    if left != 0:
        study.optimize(objective, n_trials=left, callbacks=[told], catch=(NonFiniteOutput,))
    return [_row(trial) for trial in _ended(study)]


def mean_over_sources(rows: Sequence[PredictedImage]) -> float:
    """Return the mean of each source's balanced accuracy: a large collection counts no more than a small one."""
    of_source = defaultdict(list)
    for row in rows:
        of_source[row.source].append(row)
    return sum(map(balanced_accuracy, of_source.values())) / len(of_source)


def _rounded(value: float) -> float:
    """Return a value with the three digits that a recipe is written with."""
    return float(f"{value:.3g}")


def _own_augmentation(recipe: Recipe) -> dict[str, float]:
    """Return the recipe's strengths, or MOVES or GREYS where it has none of the kind."""
    own = recipe.augmentation.model_dump()
    return {name: own[name] if any(map(own.get, kind)) else usual for kind in (MOVES, GREYS) for name, usual in kind.items()}


def own_values(recipe: Recipe) -> dict[str, Any]:
    """Return what `draw` must be given to draw the recipe itself."""
    own = recipe.augmentation.model_dump()
    names = ("label_smoothing", "weight_decay", "average", "mixup", "balance")
    return {
        "moves": float(any(map(own.get, MOVES))),
        "greys": float(any(map(own.get, GREYS))),
        "learning_rate_factor": 1.0,
        **{name: getattr(recipe, name) for name in names},
    }


def _open_study(output: Path, *, identity: dict[str, Any], seed: int) -> optuna.Study:
    output.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(output / JOURNAL)))
    study = optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True)
    if study.user_attrs.setdefault("identity", identity) != identity:
        raise InvalidData(
            f"{output} holds a search from another recipe or on other images; take another --output or delete it."
        )
    study.set_user_attr("identity", identity)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    # Another run of a search must not draw what the first has drawn.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    return study


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))


def _row(trial: FrozenTrial) -> dict[str, Any]:
    folds = trial.intermediate_values
    return {
        "try": trial.number,
        "ended": {TrialState.COMPLETE: "complete", TrialState.PRUNED: "given up"}.get(trial.state, "failed"),
        "folds": len(folds),
        "score": round(folds[max(folds)], 4) if folds else None,
        "seconds": round(trial.duration.total_seconds()) if trial.duration else None,
        **{name: _rounded(value) if isinstance(value, float) else value for name, value in trial.params.items()},
    }


def _progress(study: optuna.Study, *, budget: Budget, deadline: float) -> str:
    ended = _ended(study)
    taken = sum(trial.duration.total_seconds() for trial in ended if trial.duration) / len(ended)
    left = [deadline - time.monotonic()] + ([taken * (budget.tries - len(ended))] if budget.tries is not None else [])
    known = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = f"best {study.best_value:.4f} by try {study.best_trial.number}" if known else "none complete yet"
    return f"{len(ended)} tries, {best}; about {duration(max(0, min(left)))} left"


def _write(output: Path, *, study: optuna.Study, plan: Plan) -> None:
    rows = [_row(trial) for trial in _ended(study)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (output / TRIES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if any(row["ended"] == "complete" for row in rows):
        best = study.best_trial
        recipe = change_recipe(draw(optuna.trial.FixedTrial(best.params), plan.recipe), attempts=plan.recipe.attempts)
        origin = (
            f"# Try {best.number} of {len(rows)} around {plan.name}; mean over sources of balanced accuracy {best.value:.4f}."
        )
        (output / BEST).write_text(f"{origin}\n{as_toml(recipe)}", encoding="utf-8")


def as_toml(recipe: Recipe) -> str:
    """Write a recipe's differences from the defaults, as `read_recipe` reads them."""
    differences = recipe.model_dump(mode="json", exclude_defaults=True)
    augmentation = differences.pop("augmentation", {})
    # JSON's strings, numbers and booleans are TOML's.
    lines = [f"{name} = {json.dumps(value)}" for name, value in differences.items()]
    lines += ["", "[augmentation]"] if augmentation else []
    lines += [f"{name} = {json.dumps(value)}" for name, value in augmentation.items()]
    return "\n".join(lines) + "\n"
