"""Words of several modules; lists of words as one string, which stays readable."""

import re


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


def word_set(text: str) -> frozenset[str]:
    """The words of a text, to look one up."""
    return frozenset(text.split())


# "Answer" in other languages, and the copula behind it.
ANSWER = "antwort|réponse|res?posta|risposta|respuesta|ответ|정답|答え|正解"
IS = r"(?:is|es|ist|est)(?![a-z])|[éè](?=\s)|[은는はが]"

# What takes back the statement that it leads to: in the writer's own words, and in anyone's.
DENIED = word_set("if whether unless wrong incorrect false tempting doubt refuse hardly few 如果 若 假如")
SUPPOSED = DENIED | word_set("suppose supposing assume assuming think thinks say says claim claims believe believes")
# What joins a second option to the first.
OR = word_set(
    "or nor xor aka oder ou eller lub veya atau ili nebo vagy hoặc или أو या"
    " 或 或者 还是 還是 または 又は もしくは 또는 혹은"
)
AND = word_set("and plus und sowie et y o e и 와 と 과 同 跟 和 及 与 以及 也")
ALSO = re.compile(r"^(?:also|alternat\w*|another|other|third|next|additional(?:ly)?|else|otherwise)$")
# What a condition opens with.
IF = "(?:if|should|assuming|supposing)"
WORD = re.compile(r"[^\W\d_]+")
WINDOW = 400  # characters behind an option within which another one is offered beside it
