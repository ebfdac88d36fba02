"""The recipes that come with sasv: YAML files of training options."""

from pathlib import Path
from typing import Any

from sasv.core.errors import SasvError


def recipes() -> dict[str, Path]:
    """Return name -> file of the recipes that come with sasv."""
    return {
        path.stem: path for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
    }


def recipe(name: str) -> str:
    """Return the path of a YAML file or of a named recipe.

    Raises:
        SasvError: there is no such file or recipe.
    """
    if Path(name).exists():
        return name
    if name in recipes():
        return str(recipes()[name])
    raise SasvError(
        f"{name}: there is no such file or recipe; the recipes are: {', '.join(recipes())}"
    )


def recipe_values(name: str) -> dict[str, Any]:
    """Return the options that a recipe sets."""
    import yaml

    return yaml.safe_load(Path(recipe(name)).read_text(encoding="utf-8"))
