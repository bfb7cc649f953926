"""What is counted of one row of a data set. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from golongrl.data.construct.keys import digest
from golongrl.data.corpus import estimate_tokens
from golongrl.tasks import UnknownTaskError, task_of

UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class RowFacts:
    """A row as the counts see it; `digest` is equal for rows with the same prompt and gold."""

    digest: str
    task: str
    band: str
    length_bin: str
    lang: str
    source: str
    generator: str
    n_tokens: int
    gold_tokens: int


def facts(row: Mapping[str, Any]) -> RowFacts:
    """The facts of a row of the dataset's format; what it does not say is `-`, its length estimated."""
    extra = row.get("extra_info") or {}
    truth = row["reward_model"]["ground_truth"]
    texts = [message["content"] for message in row["prompt"]]
    gold = golds(truth)

    def said(name: str) -> str:
        return str(extra.get(name) or UNKNOWN)

    try:
        task = task_of(row["data_source"], extra.get("reward_mode")).type
    except UnknownTaskError:
        task = UNKNOWN
    n_tokens = extra.get("n_tokens") or sum(map(estimate_tokens, texts))
    lang = str(extra.get("lang") or truth.get("summary") or UNKNOWN)
    return RowFacts(
        digest=digest(texts, gold),
        task=task,
        band=said("band"),
        length_bin=said("length_bin"),
        lang=lang,
        source=said("source"),
        generator=said("generator"),
        n_tokens=int(n_tokens),
        gold_tokens=sum(map(estimate_tokens, gold)),
    )


def golds(truth: Mapping[str, Any]) -> list[str]:
    """The texts of a gold answer."""
    label = truth.get("golden_label") or ""
    return [*(truth.get("doc_ids") or []), *([label] if isinstance(label, str) else label)]


def positions(context: str, evidence: list[str]) -> Iterator[float]:
    """Where each passage of evidence stands in its context, from 0 to 1; one that does not stand there is left out."""
    for passage in evidence:
        at = context.find(passage)
        if at >= 0 and context:
            yield at / len(context)
