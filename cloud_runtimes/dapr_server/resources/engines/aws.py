"""Types of AWS's stores of secrets."""

from __future__ import annotations

from typing import Final

from ..types import ComponentType

_FIELDS: Final = {"endpoint": ("url", str)}
_REFUSED: Final = {
    **dict.fromkeys(
        ("assumerolearn", "assumerolesessionname", "trustanchorarn", "trustprofilearn"),
        "give profile, the name of one in ~/.aws/config that has the role",
    )
}
TYPES: Final = {
    "secretstores.aws.parameterstore": ComponentType(
        "secret", "aws", _FIELDS, settings={"engine": "parameterstore", "prefix": ""}, refused=_REFUSED
    ),
    "secretstores.aws.secretmanager": ComponentType(
        "secret",
        "aws",
        {**_FIELDS, "multiplekeyvaluespersecret": ("multi_valued", str)},
        settings={"engine": "secretsmanager", "prefix": ""},
        refused=_REFUSED,
    ),
}
