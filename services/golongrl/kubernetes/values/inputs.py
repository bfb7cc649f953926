"""What a release is given from outside: Secrets, the shared volume, model and prompts."""

from typing import Literal

from pydantic import Field

from golongrl.kubernetes.values.common import AccessMode, Labels, ValuesSection


class SecretKey(ValuesSection):
    """One key of a Secret made outside the chart."""

    existing_secret: str = Field("", description="Name of the Secret; empty is none.")
    key: str = Field(description="Key inside the Secret.")


class Auth(ValuesSection):
    """The release's own Secret: random tokens, kept over upgrades."""

    existing_secret: str = Field(
        "",
        description="Secret to use instead of a generated one; it needs the keys redis-password, reward-token, "
        "engine-api-key and engine-admin-api-key.",
    )


class Storage(ValuesSection):
    """The shared volume: prepared data, published weights, checkpoints and metrics."""

    existing_claim: str = Field("", description="PersistentVolumeClaim to use; empty creates one, kept on uninstall.")
    folder: str = Field(
        "", pattern=r"^([A-Za-z0-9._-]+)?$", description="Folder inside the volume, for releases that share a claim."
    )
    size: str = Field("10Gi", description="Size of the created claim.")
    storage_class: str = Field("", description="StorageClass; empty is the cluster's default.")
    access_modes: list[AccessMode] = Field(
        default_factory=lambda: list[AccessMode](["ReadWriteOnce"]),
        description="ReadWriteMany for more than one node; ReadWriteOnce keeps learner and engines on one, as on kind "
        "and k3d.",
    )
    annotations: Labels = Field(default_factory=dict, description="Annotations of the created claim.")


class ImageVolume(ValuesSection):
    """Model weights inside an OCI image, mounted as a volume (Kubernetes 1.33 and later)."""

    reference: str = Field("", description="Image reference; empty is none.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When the kubelet pulls."
    )


class Download(ValuesSection):
    """An init step of the learner that fetches a hub repository onto the shared volume, once."""

    repo: str = Field("", description="Hub repository; empty is none.")
    revision: str = Field("main", description="Branch, tag or commit.")


class ModelValues(ValuesSection):
    """Where the learner finds the initial weights; engines read what the learner publishes as version 0."""

    existing_claim: str = Field("", description="Claim with model folders, mounted read-only at /models.")
    image_volume: ImageVolume = ImageVolume()
    download: Download = Field(
        Download(), description="Fetch weights to /store/models/NAME, the recipe's model.path then."
    )


class Dataset(ValuesSection):
    """Where the learner finds the prompts."""

    download: Download = Field(
        Download(), description="Fetch rows to /store/datasets/NAME, the recipe's data.train then."
    )
