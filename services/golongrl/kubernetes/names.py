"""Names of releases and namespaces, checked before a cluster or helm is asked. Pure."""

import re
from typing import Final

from golongrl.errors import InputError

# Kubernetes' rule for a namespace, and Helm's for a release.
_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOTTED: Final = rf"{_LABEL}(\.{_LABEL})*"


def check_names(release: str, namespace: str | None) -> None:
    """The names given as --release and --namespace; None or an empty namespace leaves it to the context.

    Raises:
        InputError: Helm or Kubernetes would refuse one of them.
    """
    for option, word, form, longest in (
        ("--release", release, _DOTTED, 53),
        ("--namespace", namespace or "default", _LABEL, 63),
    ):
        if len(word) > longest or not re.fullmatch(form, word):
            raise InputError(f"{option} {word!r}: use lower-case letters, digits and '-', at most {longest} characters")
