"""What a release is given from outside: Secrets, the shared volume, model and prompts."""

from typing import Annotated

from pydantic import Field

from golongrl.kubernetes.values.common import (
    AccessMode,
    Annotations,
    DataKey,
    ImageReference,
    ObjectName,
    PullPolicy,
    Size,
    ValuesSection,
)


class SecretKey(ValuesSection):
    """One key of an existing Secret."""

    existing_secret: ObjectName = Field("", description="Name of the Secret. Empty means none.")
    key: DataKey = Field(description="Key inside the Secret.")


class Auth(ValuesSection):
    """The release's own Secret: random passwords and tokens, which upgrades keep."""

    existing_secret: ObjectName = Field(
        "",
        description="Secret to use instead of a generated one. It needs the keys redis-password, reward-token, "
        "engine-api-key and engine-admin-api-key.",
    )


class Storage(ValuesSection):
    """The shared volume: prepared data, published weights, checkpoints and metrics."""

    existing_claim: ObjectName = Field(
        "", description="PersistentVolumeClaim to use. Empty creates one, which `helm uninstall` keeps."
    )
    # No leading dot: `..` would be the folder above the volume.
    folder: Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]*)?$")] = Field(
        "", description="Folder inside the volume, for releases that share a claim."
    )
    size: Size = Field("10Gi", description="Size of the created claim.")
    storage_class: ObjectName = Field("", description="StorageClass. Empty means the cluster's default.")
    access_modes: Annotated[list[AccessMode], Field(min_length=1)] = Field(
        default_factory=lambda: list[AccessMode](["ReadWriteOnce"]),
        description="ReadWriteMany for more than one node. With ReadWriteOnce, learner and engines run on one node, as "
        "on kind and k3d.",
    )
    annotations: Annotations = Field(default_factory=dict, description="Annotations of the created claim.")


class ImageVolume(ValuesSection):
    """Model weights inside an OCI image, mounted as a volume (Kubernetes 1.33 and later)."""

    reference: ImageReference = Field("", description="Image reference. Empty means none.")
    pull_policy: PullPolicy = Field("IfNotPresent", description="When the kubelet pulls the image.")


class Download(ValuesSection):
    """An init step of the learner that downloads a repository of the Hugging Face Hub once, to the shared volume."""

    repo: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?)?$")] = Field(
        "", description="Repository, as OWNER/NAME. Empty means none."
    )
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")] = Field(
        "main", description="Branch, tag or commit."
    )


class ModelValues(ValuesSection):
    """Where the learner finds the initial weights. The learner publishes them to the engines as version 0."""

    existing_claim: ObjectName = Field("", description="Claim with model folders, mounted read-only at /models.")
    image_volume: ImageVolume = ImageVolume()
    download: Download = Field(
        Download(), description="Download weights to /store/models/NAME; set the recipe's model.path to that folder."
    )


class Dataset(ValuesSection):
    """Where the learner finds the prompts."""

    download: Download = Field(
        Download(), description="Download rows to /store/datasets/NAME; set the recipe's data.train to that folder."
    )
