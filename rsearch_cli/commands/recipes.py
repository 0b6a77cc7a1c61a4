"""`rsearch recipes`: list the shipped recipes, or show one in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rsearch_cli.commands.options import Json, Overrides
from rsearch_cli.streams import echo
from rsearch_cli.ui.output import plain_table, print_json, print_rich

if TYPE_CHECKING:
    from rsearch_cli.recipe.loading import LoadedRecipe

recipes_app = typer.Typer(add_completion=False)


@recipes_app.callback(invoke_without_command=True)
def show_all(context: typer.Context, as_json: Json = False) -> None:
    """List the recipes that ship with rsearch.

    Example: rsearch recipes
    """
    if context.invoked_subcommand is not None:
        return
    from rsearch_cli.recipe.loading import list_recipes

    recipes = list_recipes()
    if as_json:
        print_json([_describe(loaded) for loaded in recipes])
    else:
        _print_table(recipes)


@recipes_app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="Recipe name or file.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Print a recipe with all its settings, defaults included, as YAML.

    Example: rsearch recipes show quickstart --set train.max_steps=20
    """
    from rsearch_cli.recipe.loading import dump_recipe, load_recipe

    # A recipe that is only printed need not be trusted.
    resolved = load_recipe(recipe, overrides or (), trusted=True).recipe
    if as_json:
        print_json(resolved.model_dump())
    else:
        echo(*dump_recipe(resolved).splitlines())


def _describe(loaded: LoadedRecipe) -> dict[str, str]:
    recipe = loaded.recipe
    return {
        "name": loaded.name,
        "purpose": recipe.purpose,
        "hardware": recipe.hardware,
        "needs": recipe.needs,
        "path": str(loaded.path),
    }


def _print_table(recipes: list[LoadedRecipe]) -> None:
    table = plain_table("NAME", no_wrap=True)
    table.add_column("PURPOSE")
    table.add_column("HARDWARE")
    for loaded in recipes:
        table.add_row(loaded.name, loaded.recipe.purpose, loaded.recipe.hardware)
    print_rich(table)
