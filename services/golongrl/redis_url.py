"""Redis URLs and their passwords, which stand in no command line, line of output or file that others can read. Pure."""

from urllib.parse import quote, unquote


def split_password(url: str) -> tuple[str, str | None]:
    """A URL without its password, and the password. Pure."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url, None
    rest, password = _without_userinfo(rest)
    base, mark, query = rest.partition("?")
    kept = []
    for word in query.split("&") if mark else []:
        name, _, value = word.partition("=")
        if name == "password":
            password = password or _unquoted(value)
        else:
            kept.append(word)
    return f"{scheme}://{base}" + (f"?{'&'.join(kept)}" if kept else ""), password


def with_password(url: str, password: str | None) -> str:
    """A URL that `split_password` made, with the password again: for a client in this process, never for a line."""
    scheme, separator, rest = url.partition("://")
    if password is None or not separator:
        return url
    place, slash, path = rest.partition("/")
    user, _, address = place.rpartition("@")
    return f"{scheme}://{user}:{quote(password, safe='')}@{address}{slash}{path}"


def _without_userinfo(rest: str) -> tuple[str, str | None]:
    """`user:password@host/path` -> (`user@host/path`, password); an @ in the password may be unescaped."""
    userinfo, at, place = rest.partition("?")[0].rpartition("@")
    query = rest[len(userinfo) + len(at) + len(place) :]
    if not at:
        return rest, None
    user, colon, password = userinfo.partition(":")
    if not colon:
        return rest, None
    return f"{user}@{place}{query}" if user else f"{place}{query}", _unquoted(password) or None


def _unquoted(text: str) -> str:
    return unquote(text)
