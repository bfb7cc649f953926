"""Keys are checked where they enter: httpx raises what names neither the key nor its variable."""

import pytest

from golongrl.errors import InputError
from golongrl.header_keys import header_key


def test_white_space_around_a_key_is_no_part_of_it() -> None:
    """`kubectl create secret --from-file` keeps the line break at the file's end."""
    assert header_key(" sk-1 2\n", "KEY") == "sk-1 2"
    for none in (None, "", "\n"):
        assert header_key(none, "KEY") is None


@pytest.mark.parametrize("key", ["sésame", "two\nlines", "nul\0", "\udcff"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(InputError, match="KEY: a key has printable ASCII characters only") as error:
        header_key(key, "KEY")
    assert key not in str(error.value)
