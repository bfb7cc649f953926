"""Why a call of the API server gave nothing; each message is one line."""

from golongrl.errors import GolongrlError, InputError


class ClusterError(GolongrlError):
    """The API server refused, does not have what was asked for, or did not answer; the message is one line."""

    code = "none"
    """The HTTP status as text; "none" without an answer."""


class ClusterAccessError(ClusterError, InputError):
    """There is no usable kubeconfig or service account, or the named context does not exist."""


class ClusterMissingError(ClusterError):
    """No such object, or the cluster does not have the kind."""


class ClusterSilentError(ClusterError):
    """No answer in CALL_S: other calls would not be answered either."""


class ClusterConflictError(ClusterError):
    """An object of that name exists, was written meanwhile, or another field manager owns the field."""


class ClusterForbiddenError(ClusterError):
    """The credentials lack the permission."""
