"""The sections of a pipeline that say how questions are generated and verified, and which models are asked."""

from golongrl.recipe.models import Section


class Generate(Section):
    """Phase 3, synthetic track: questions, answers and evidence for the selected documents."""


class Verify(Section):
    """Phase 3: a second model answers with and without the documents."""


class Passrate(Section):
    """Phase 3: how often models of the policy's size answer right."""
