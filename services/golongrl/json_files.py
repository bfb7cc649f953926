"""JSON files that this program wrote into a folder and reads again, which a person or a full disk may have damaged."""

from pathlib import Path
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from golongrl.errors import GolongrlError, InputError
from golongrl.reading import NotUtf8Error, read_text, refuse_special

T = TypeVar("T")
# Characters of a reason in a message.
_LONGEST: Final = 200


def read_json(
    path: Path, most_bytes: int, form: TypeAdapter[T], otherwise: str, kind: type[GolongrlError] = InputError
) -> T | None:
    """What the file says; None where there is none.

    Args:
        form: all that its readers rely on.
        otherwise: what is said of a file that has another form.
        kind: what is raised then.

    Raises:
        InputError: it is longer than `most_bytes`, or no plain file.
        GolongrlError: of that kind, where it cannot be read or has another form.
    """
    try:
        refuse_special(path)
        return form.validate_json(read_text(path, most_bytes))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise kind(f"{path}: cannot be read: {error.strerror or error}") from error
    except NotUtf8Error as error:
        raise kind(f"{path}: {otherwise} (it is not UTF-8)") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise kind(f"{path}: {otherwise} ({at + ': ' if at else ''}{first['msg'][:_LONGEST]})") from error
