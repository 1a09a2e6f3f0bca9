"""Settings of the commands that need a network; what cannot work is refused in a sentence.

Nothing heavy is imported here: the command line makes its flags from the fields.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ModelWrapValidatorHandler, ValidationError, model_validator

from geotranslate.errors import SettingError

CHOICES = {
    "greater_than_equal": "{ge:g} or more",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
}
"""What may be chosen, by the type of pydantic's error or the type's first word."""


class Settings(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Settings by name, checked when they are made.

    Raises:
        SettingError: a setting is unknown, or cannot work alone or beside another.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_sentences(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            wrong = [
                each for each in error.errors() if each["type"] != "default_factory_not_called"
            ]
            raise SettingError(" ".join(map(_sentence, wrong[:3]))) from error


def _sentence(error: Any) -> str:
    name = ".".join(map(str, error["loc"])) or "the settings"
    if error["type"] == "extra_forbidden":
        return f"{name} is no setting. Leave it out, or correct its spelling."
    if error["type"] == "missing":
        return f"{name} is missing. Give it."
    kind: str = error["type"]
    choice = CHOICES.get(kind) or CHOICES.get(kind.split("_")[0])
    mend = f"Choose {choice.format(**error.get('ctx', {}))}" if choice else error["msg"]
    return f"{name} cannot be {error['input']!r}. {mend}."
