"""Base of all sections of a recipe."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class BaseConfig(BaseModel):
    """A section: unknown keys are errors, values are not coerced, instances are frozen.

    The docstring below a field is its description in help texts and in the documentation.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )
