"""Lists of words as one string, which stays readable."""


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()
