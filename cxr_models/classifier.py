from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from cxr_models.augment import augment
from cxr_models.networks import INPUT_SIDES, build_network
from cxr_models.recipe import Recipe
from cxr_models.values import LABELS, Preparation

Batch = tuple[Tensor, Tensor]


class Classifier(lightning.LightningModule):
    """A network in training: loss, augmentation, optimiser and what is logged. Knows neither files nor folders.

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
        self.network = build_network(self.recipe.architecture, classes=len(LABELS))
        self.preparation = Preparation(side=INPUT_SIDES[self.recipe.architecture], mean=self.recipe.mean, std=self.recipe.std)
        self.class_weights: Tensor | None
        counts = torch.tensor(class_counts, dtype=torch.float32)
        weights = counts.sum() / (len(counts) * counts) if self.recipe.class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)
        self.val_accuracy = MulticlassAccuracy(num_classes=len(LABELS), average="micro")
        self.val_balanced_accuracy = MulticlassAccuracy(num_classes=len(LABELS), average="macro")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of prepared images."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch, augmented on the device it already lies on."""
        del batch_idx
        images, truth = batch
        moved = augment(images, self.recipe.augmentation, preparation=self.preparation)
        loss = functional.cross_entropy(
            self(moved), truth, weight=self.class_weights, label_smoothing=self.recipe.label_smoothing
        )
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracies; the loss is plain cross-entropy, whatever the training weighs."""
        del batch_idx
        images, truth = batch
        logits = self(images)
        self.val_accuracy(logits, truth)
        self.val_balanced_accuracy(logits, truth)
        loss = functional.cross_entropy(logits, truth)
        self.log("valid_loss", loss, prog_bar=True, batch_size=len(images), sync_dist=True)
        self.log("valid_acc", self.val_accuracy, prog_bar=True)
        self.log("valid_balanced_acc", self.val_balanced_accuracy)

    def configure_optimizers(self) -> Any:
        """Return the recipe's optimiser and schedule."""
        recipe = self.recipe
        optimizer: torch.optim.Optimizer
        rate, decay = recipe.learning_rate, recipe.weight_decay
        if recipe.optimizer == "sgd":
            optimizer = torch.optim.SGD(self.parameters(), lr=rate, weight_decay=decay, momentum=recipe.momentum)
        elif recipe.optimizer == "adamw":
            optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=decay)
        else:
            optimizer = torch.optim.Adam(self.parameters(), lr=rate, weight_decay=decay)
        if recipe.schedule == "constant":
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches), pct_start=0.1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
