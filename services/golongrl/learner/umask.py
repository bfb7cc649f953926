"""Folders of the shared volume that driver and ranks both write in, though they need not be one user.

With RDMA the chart runs ranks as root without root's power to pass over permissions, beside a driver that is user 1000
of the same group. So on a cluster both leave what they make open to their group: ranks write into the driver's folders,
and the driver renames and deletes what ranks have written.
"""

import os
from typing import Final

# Of the ranks' environment: the driver's umask, in octal.
UMASK: Final = "GOLONGRL_UMASK"
_GROUP: Final = 0o070


def open_to_group() -> dict[str, str]:
    """Let this process' group write what it makes from now on; the environment by which ranks follow."""
    mask = os.umask(0) & ~_GROUP
    os.umask(mask)
    return {UMASK: f"{mask:03o}"}


def follow() -> None:
    """In a rank: as the driver that started it, if that said anything."""
    if UMASK in os.environ:
        os.umask(int(os.environ[UMASK], 8))
