from collections.abc import Iterator
from typing import Any, Literal

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_accuracy

from cxr_models.augment import augment, mix
from cxr_models.networks import build_network
from cxr_models.recipe import Recipe
from cxr_models.values import LABELS

Batch = tuple[Tensor, ...]
"""Images and their labels, and in training behind them a teacher's probabilities of each label, where there is one."""
Stage = Literal["train", "valid", "test"]


class Classifier(lightning.LightningModule):
    """A network in training: loss, augmentation, freezing, optimiser and what is logged. Knows neither files nor folders.

    Logs for each stage its loss, accuracy and balanced accuracy once an epoch: train_loss, valid_acc, test_balanced_acc ….

    Parameters
    ----------
    recipe
        A `Recipe` as plain values, so that it can stand in a checkpoint.
    class_counts
        How many training images there are of each label, for `class_weights`.
    """

    def __init__(self, recipe: dict[str, Any], class_counts: list[int]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.recipe = Recipe.model_validate(recipe)
        self.preparation = self.recipe.preparation
        self.network = start(self.recipe)
        self.class_weights: Tensor | None
        counts = torch.tensor(class_counts, dtype=torch.float32)
        weights = counts.sum() / (len(counts) * counts) if self.recipe.class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)
        # Measured once an epoch: metrics that are modules and updated each step cost a small network a tenth of its time.
        self._answers: dict[Stage, list[tuple[Tensor, Tensor, Tensor]]] = {"train": [], "valid": [], "test": []}

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of prepared images."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        del batch_idx
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure one batch."""
        del batch_idx
        self._step(batch, "valid")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure one batch."""
        del batch_idx
        self._step(batch, "test")

    def _step(self, batch: Batch, stage: Stage) -> Tensor:
        """Return the loss: plain cross-entropy but for training, whatever the recipe weighs, smooths and mixes there."""
        images, truth, *taught = batch
        # Stored pixels are to be augmented, on the device they already lie on; prepared images are taken as they are.
        if images.dtype == torch.uint8:
            images = augment(images, self.recipe.augmentation, preparation=self.preparation)
        if stage == "train":
            logits, loss = self._training_loss(images, truth, *taught)
        else:
            logits = self(images)
            loss = functional.cross_entropy(logits, truth)
        self._answers[stage].append((logits.detach(), truth, loss.detach().expand(len(truth))))
        return loss

    def _training_loss(self, images: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
        if not self.recipe.mixup:
            logits = self(images)
            return logits, self._loss(logits, *labels)
        mixed, partner, share = mix(images, self.recipe.mixup)
        logits = self(mixed)
        others = [each[partner] for each in labels]
        return logits, share * self._loss(logits, *labels) + (1 - share) * self._loss(logits, *others)

    def _loss(self, logits: Tensor, truth: Tensor, taught: Tensor | None = None) -> Tensor:
        smoothing = self.recipe.label_smoothing
        true = functional.cross_entropy(logits, truth, weight=self.class_weights, label_smoothing=smoothing)
        if taught is None:
            return true
        return torch.lerp(true, functional.cross_entropy(logits, taught), self.recipe.teacher_share)

    def on_train_epoch_start(self) -> None:
        """Freeze what this epoch leaves as it is, and draw from here on what this epoch draws whenever training is resumed."""
        torch.manual_seed((self.recipe.seed * 1000 + self.global_rank) * 10_000 + self.current_epoch)
        alone = self.recipe.trainable == "head" or self.current_epoch < self.recipe.head_epochs
        for index, block in enumerate(blocks(self.network)):
            learns = not alone and index >= self.recipe.freeze_blocks
            # Where no input and no parameter needs a gradient autograd keeps nothing: frozen blocks cost a forward pass alone.
            block.requires_grad_(learns)
            block.train(learns)

    def on_train_epoch_end(self) -> None:
        """Log what was measured while training."""
        self._log("train")

    def on_validation_epoch_end(self) -> None:
        """Log what was measured on the validation images."""
        self._log("valid")

    def on_test_epoch_end(self) -> None:
        """Log what was measured on the test images."""
        self._log("test")

    def _log(self, stage: Stage) -> None:
        logits, truth, losses = (torch.cat(parts) for parts in zip(*self._answers[stage], strict=True))
        self._answers[stage].clear()
        figures = {
            "loss": losses.mean(),
            "acc": multiclass_accuracy(logits, truth, len(LABELS), average="micro"),
            "balanced_acc": multiclass_accuracy(logits, truth, len(LABELS), average="macro"),
        }
        for name, figure in figures.items():
            self.log(f"{stage}_{name}", figure, prog_bar=name != "balanced_acc", sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return the recipe's optimiser and schedule; what is never trained is not in it."""
        recipe = self.recipe
        never = len(blocks(self.network)) if recipe.trainable == "head" else recipe.freeze_blocks
        body = [parameter for block in blocks(self.network)[never:] for parameter in block.parameters()]
        head = list(self.network.get_submodule("classifier").parameters())
        rate, decay = recipe.learning_rate, recipe.weight_decay
        groups: list[dict[str, Any]] = [{"params": head, "lr": rate}]
        if body:
            groups.append({"params": body, "lr": rate * recipe.body_learning_rate_factor})
        optimizer: torch.optim.Optimizer
        if recipe.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, weight_decay=decay, momentum=recipe.momentum, fused=True)
        elif recipe.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, weight_decay=decay, fused=True)
        else:
            optimizer = torch.optim.Adam(groups, weight_decay=decay, fused=True)
        if recipe.schedule == "constant":
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            [group["lr"] for group in groups],
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=0.1,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def start(recipe: Recipe) -> nn.Module:
    """Build a recipe's network with fresh weights and its dropout."""
    network = build_network(recipe.architecture, classes=len(LABELS))
    for layer in network.modules():
        if isinstance(layer, nn.Dropout) and recipe.dropout is not None:
            layer.p = recipe.dropout
        if isinstance(layer, nn.Conv2d | nn.Linear) and recipe.init == "normal_0.05":
            nn.init.normal_(layer.weight, 0, 0.05)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def blocks(network: nn.Module) -> list[nn.Sequential]:
    """Return the network's blocks of convolutions, first to last; a pooling ends each, or the convolutions' own end."""
    return list(_blocks(network))


def _blocks(network: nn.Module) -> Iterator[nn.Sequential]:
    block: list[nn.Module] = []
    for layer in network.get_submodule("features").children():
        block.append(layer)
        if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            yield nn.Sequential(*block)
            block = []
    if block:
        yield nn.Sequential(*block)
