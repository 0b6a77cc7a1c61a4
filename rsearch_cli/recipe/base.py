"""What every section of a recipe has in common.

Place in the path: the base of the schema's classes, and of the options that sources define. On
failure: pydantic reports all problems; `recipe.loading` turns them into a `RecipeError`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class BaseConfig(BaseModel):
    """Base of all sections: unknown keys fail, values are not coerced, nothing changes later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)
