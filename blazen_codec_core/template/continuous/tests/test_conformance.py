"""All contracts of the conformance kit, for the shipped weights and for random ones."""

from blazen_codec_core.conformance import ContinuousContracts, Subject


class TestTemplate(ContinuousContracts):
    subjects = (Subject("template_16khz"),)


class TestRandomWeights(ContinuousContracts):
    subjects = (Subject("template_16khz", weights="random:1"),)
