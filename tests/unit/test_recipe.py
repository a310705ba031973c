import pytest

from cxr_models.errors import InvalidRecipe
from cxr_models.recipe import Recipe, change_recipe, read_recipe, shipped_recipes


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architecture": "lenet5", "input_side": 64}, "a LeNet-5 takes 32 pixels"),
        ({"architecture": "vgg16_bn", "input_side": 96, "stored_side": 64}, "stored_side 64 is below the input side of 96"),
        ({"architecture": "lenet5_bn", "freeze_blocks": 4}, "lenet5_bn has 3 blocks"),
        ({"architecture": "vgg16", "trainable": "staged"}, "belong together"),
        ({"architecture": "vgg16", "head_epochs": 2}, "belong together"),
        ({"architecture": "lenet5", "dropout": 0.5}, "lenet5 as published has none; lenet5_bn has"),
        ({"architecture": "vgg16_pooled", "input_side": 16}, "input_side: .*32"),
        ({"val_share": 0}, 'without validation images nothing is best; keep = "last"'),
        ({"val_share": 0, "keep": "last", "attempts": 2}, "attempts 1"),
        ({"val_share": 0, "keep": "last", "as_published": True}, "not as published"),
        ({"teacher_share": 0.0}, "teacher_share"),
    ],
    ids=str,
)
def test_values_that_do_not_fit_together_get_one_clear_error(changes: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidRecipe, match=told) as error:
        change_recipe(Recipe(architecture="lenet5"), **changes)
    assert "\n" not in str(error.value)


def test_the_input_side_is_the_architectures_unless_the_recipe_says_another() -> None:
    assert Recipe(architecture="lenet5_bn").preparation.side == 32
    assert Recipe(architecture="vgg16_pooled").preparation.side == 224
    assert Recipe(architecture="vgg16_pooled", input_side=96).preparation.side == 96


def test_none_changes_nothing_and_a_value_replaces_the_recipes() -> None:
    recipe = read_recipe("thesis-lenet5")
    assert change_recipe(recipe, epochs=None, seed=None) == recipe
    assert change_recipe(recipe, seed=7) == recipe.model_copy(update={"seed": 7})


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "init"), [("thesis-vgg16", 25, 10, "normal_0.05"), ("thesis-lenet5", 128, 20, "default")]
)
def test_the_published_recipes_are_what_was_published(name: str, batch: int, epochs: int, init: str) -> None:
    recipe = read_recipe(name)
    assert name in shipped_recipes()
    assert recipe.architecture == name.removeprefix("thesis-")
    assert (recipe.optimizer, recipe.learning_rate, recipe.schedule) == ("adam", 1e-3, "constant")
    assert (recipe.batch_size, recipe.epochs, recipe.init, recipe.val_share) == (batch, epochs, init, 0.2)
    assert (recipe.stop_on, recipe.min_delta, recipe.patience, recipe.monitor) == ("valid_loss", 0.001, 3, "valid_acc")
    assert recipe.augmentation.model_dump(exclude_defaults=True) == {"mirror": 0.5, "rotate_degrees": 10}
