"""Folders of the shared volume in which driver and ranks both write, possibly as different users.

With RDMA the chart runs ranks as root without the capability to override permissions, while the driver is user 1000 of
the same group. So on a cluster both leave what they make open to their group: ranks write into the driver's folders,
and the driver renames and deletes what ranks have written.
"""

import os
from typing import Final

# Of the ranks' environment: the driver's umask, in octal.
UMASK: Final = "GOLONGRL_UMASK"
_GROUP: Final = 0o070


def open_to_group() -> dict[str, str]:
    """Let this process' group write what it makes from now on; the environment that makes ranks do so, too."""
    mask = os.umask(0) & ~_GROUP
    os.umask(mask)
    return {UMASK: f"{mask:03o}"}


def follow() -> None:
    """In a rank: take the umask of the driver, if it set one."""
    if UMASK in os.environ:
        os.umask(int(os.environ[UMASK], 8))
