"""All contracts of the conformance kit, for the shipped weights and for random ones."""

from blazen_codec_core.conformance import Contracts, Subject


class TestTemplate(Contracts):
    subjects = (Subject("template_16khz"),)


class TestRandomWeights(Contracts):
    subjects = (Subject("template_16khz", weights="random:1"),)
