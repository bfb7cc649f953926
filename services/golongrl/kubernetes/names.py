"""The forms of Kubernetes' names; names of releases and namespaces, checked before a cluster or helm is asked. Pure."""

import re
from typing import Final

from golongrl.errors import InputError

# RFC 1123: a label (Kubernetes' rule for a namespace), and labels joined by dots (for most objects, and Helm's for a
# release). In what both Python's and Helm's regular expressions know: no look-ahead.
LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN: Final = rf"{LABEL}(\.{LABEL})*"
# Characters of a wrong name in a message.
_SHOWN: Final = 80


# Helm keeps room for what it and the charts add to a release's name.
LONGEST_RELEASE: Final = 53
LONGEST_LABEL: Final = 63


def check_names(release: str, namespace: str | None, *, new: bool = False) -> None:
    """The names given as --release and --namespace; None or an empty namespace leaves it to the context.

    Args:
        new: something is made under the release's name. Helm takes dots in it, which no Service has in its name: the
            chart writes '-' for them, so that the objects of a.b and a-b would be the same.

    Raises:
        InputError: Helm or Kubernetes would refuse one of them.
    """
    dots = "" if new else ", '.'"
    for option, word, form, longest, more in (
        ("--release", release, LABEL if new else SUBDOMAIN, LONGEST_RELEASE, dots),
        ("--namespace", namespace or "default", LABEL, LONGEST_LABEL, ""),
    ):
        if len(word) > longest or not re.fullmatch(form, word):
            shown = word if len(word) <= _SHOWN else f"{word[:_SHOWN]}..."
            raise InputError(
                f"{option} {shown!r}: use lower-case letters, digits{more} and '-', at most {longest} characters, the "
                "first and the last of them a letter or digit"
            )
