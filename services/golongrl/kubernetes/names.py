"""The forms of Kubernetes' names; names of releases and namespaces, checked before a cluster or helm is asked. Pure."""

import re
from typing import Final

from golongrl.errors import InputError

# RFC 1123: a label (Kubernetes' rule for a namespace), and labels joined by dots (for most objects, and Helm's for a
# release). In what both Python's and Helm's regular expressions know: no look-ahead.
LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN: Final = rf"{LABEL}(\.{LABEL})*"


def check_names(release: str, namespace: str | None) -> None:
    """The names given as --release and --namespace; None or an empty namespace leaves it to the context.

    Raises:
        InputError: Helm or Kubernetes would refuse one of them.
    """
    for option, word, form, longest in (
        ("--release", release, SUBDOMAIN, 53),
        ("--namespace", namespace or "default", LABEL, 63),
    ):
        if len(word) > longest or not re.fullmatch(form, word):
            raise InputError(f"{option} {word!r}: use lower-case letters, digits and '-', at most {longest} characters")
