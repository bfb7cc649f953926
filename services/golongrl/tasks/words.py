"""Words of several modules; lists of words as one string, which stays readable."""


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


# "Answer" in other languages, and the copula behind it.
ANSWER = "antwort|réponse|res?posta|risposta|respuesta|ответ|정답|答え|正解"
IS = r"(?:is|es|ist|est)(?![a-z])|[éè](?=\s)|[은는はが]"
