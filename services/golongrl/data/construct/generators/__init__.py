"""Questions about real documents whose gold answers are found by code. Pure: same documents and seed, same sample.

The documents stay what they are; only question and answer are made. Every sample has passed the gates: its gold earns
full marks by the strict rules of its metric, its evidence stands in the context word for word, the question does not
hold the answer, and no answer made of the question alone would pass.
"""

import random
from collections.abc import Sequence

from golongrl.data.construct.generators import counting, paths, retrieval, sequence, summaries, tables, versions
from golongrl.data.construct.generators.desk import Desk, Generator
from golongrl.data.construct.generators.guesses import best_guess, is_guessed
from golongrl.data.construct.generators.outline import Measure, outline
from golongrl.data.construct.generators.sample import Document, Language, MadeSample, NoSampleError
from golongrl.data.corpus import estimate_tokens
from golongrl.recipe import TaskType
from golongrl.tasks.gold import earns_full_marks, own_score

__all__ = ["GENERATORS", "Document", "MadeSample", "NoSampleError", "checked", "generate", "outline"]

# By task type: first where something stands or how often, then what takes several steps.
GENERATORS: dict[TaskType, tuple[Generator, ...]] = {
    "T1": (
        retrieval.place_of_sentence, retrieval.next_sentence, versions.missing_number, paths.chain_of_mentions,
        paths.meeting_place,
    ),
    "T2": (
        retrieval.sentence_of_section, retrieval.first_mentioned, retrieval.most_mentioned, versions.altered_sentence,
        paths.absent_from_peak,
    ),
    "T3": (
        retrieval.every_place, retrieval.one_without_other, retrieval.more_than_other, versions.altered_statements,
    ),
    "T4": (
        counting.sections_with, counting.times, counting.difference, counting.more_often_than, versions.sum_of_gaps,
    ),
    "T5": (
        counting.mention_table, counting.mention_join, counting.peak_table, tables.table_query, tables.table_groups,
        tables.tables_join,
    ),
    "T6": (sequence.last_mentions, sequence.first_sentences, paths.toggled_list, versions.filled_gaps),
    "T7": (counting.rank_sections, counting.rank_words, counting.rank_by_topic, counting.rank_by_spread),
    "T8": (
        sequence.sentence_order, sequence.first_mention_order, sequence.frequency_order, sequence.last_mention_order,
        versions.order_of_gaps,
    ),
    "T9": (summaries.section_lead, summaries.text_lead, summaries.named_summary),
}  # fmt: skip
# Draws of one generator before the next one is tried: a draw may meet a tie or a sentence that stands twice.
_DRAWS = 4


def generate(
    task: TaskType,
    documents: Sequence[Document],
    lang: Language,
    seed: int | str,
    most_tokens: int,
    measure: Measure = estimate_tokens,
) -> MadeSample:
    """A sample of the task type about these documents, in a context of at most `most_tokens`.

    Raises:
        NoSampleError: they yield none; the reason is that of the last generator that was tried.
    """
    rng = random.Random(f"{seed}:{task}")
    desk = Desk(outline(documents, lang, most_tokens, measure, rng.random()), rng)
    refusal = NoSampleError("no generator", f"none for {task}")
    kinds = GENERATORS[task]
    for make in rng.sample(kinds, len(kinds)):
        for _ in range(_DRAWS):
            try:
                sample = checked(make(desk))
                if is_guessed(sample):
                    raise NoSampleError("guessed from the question", best_guess(sample)[1][:80])
                return sample
            except NoSampleError as error:
                refusal = error
    raise refusal


def checked(sample: MadeSample) -> MadeSample:
    """The sample, if it passes the gates.

    Raises:
        NoSampleError: it does not.
    """
    for passage in sample.evidence:
        if passage not in sample.context:
            raise NoSampleError("evidence not in the context", passage[:80])
    if sample.data_source == "EM" and sample.answer.lower() in sample.question.lower():
        raise NoSampleError("answer in the question", sample.answer[:80])
    golds = [gold.strip().lower() for gold in sample.golds]
    if len(set(golds)) < len(golds):
        raise NoSampleError("gold not unique", "two gold items are the same")
    outcome = own_score(sample.data_source, sample.ground_truth(), {"reward_mode": sample.reward_mode}, "strict")
    if not earns_full_marks(outcome, "strict"):
        raise NoSampleError("gold does not score 1.0", outcome.reason or f"it scores {outcome.score}")
    return sample
