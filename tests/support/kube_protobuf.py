"""As much of Kubernetes' protobuf as helm speaks: the Secret with its record of a release."""

import base64
from collections.abc import Iterator
from typing import Any


def secret_of(body: bytes) -> dict[str, Any]:
    """A Secret from Kubernetes' protobuf, the only thing helm sends so: its record of the release."""
    (raw,) = _fields(body.removeprefix(b"k8s\0"))[2]
    secret = _fields(raw)
    metadata = _fields(secret[1][0])
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": secret[3][0].decode(),
        "metadata": {
            "name": metadata[1][0].decode(),
            "labels": {key.decode(): value.decode() for key, value in _entries(metadata[11])},
        },
        "data": {key.decode(): base64.b64encode(value).decode() for key, value in _entries(secret[2])},
    }


def _entries(items: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for item in items:
        fields = _fields(item)
        yield fields[1][0], fields[2][0]


def _fields(data: bytes) -> dict[int, list[bytes]]:
    """A protobuf message: the bytes of each length-delimited field; numbers are passed over."""
    found: dict[int, list[bytes]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = number()
        length = number()
        if tag & 7 == 2:
            found.setdefault(tag >> 3, []).append(data[at : at + length])
            at += length
    return found
