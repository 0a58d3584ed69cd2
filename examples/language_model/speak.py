"""A language model that speaks digits, from recordings to sound.

    python examples/language_model/speak.py spoken.wav

Synthetic recordings with texts become a dataset of tokens. A small transformer reads a voice and a text, and learns the tokens
after them. What it then says is decoded while it is sampled, and compared with the training voices.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from synthetic_speech import RATE, VOICES, WORDS, say, write_recordings
from torch import Tensor
from torch.utils.data import DataLoader
from transformer import LanguageModel

import blazen_codec_core as bc
from blazen_codec_core.data import Sample, TokenDataset, collate

CODEC, LAYOUT, KBPS = "encodec_tiny", "musicgen_delay", 3.0
PROMPTS = [*VOICES, *WORDS]
MOST_SECONDS = 1.5


def prompt_of(voice: str, text: str, size: int, slots: int) -> Tensor:
    """Return ids `(steps, slots)` of a voice and the words of a text, which follow the `size` ids of the tokens."""
    ids = torch.tensor([size + PROMPTS.index(name) for name in [voice, *text.split()]])
    return ids[:, None].expand(-1, slots)


def prompted(sample: Sample) -> Sample:
    """Put the prompt of its voice and text before a sample."""
    slots = sample.ids.shape[1]
    return sample.prompted(prompt_of(sample.columns["voice"], sample.columns["text"], int(sample.ids[0, 0]) + 1, slots))


def train(dataset: TokenDataset, steps: int) -> tuple[LanguageModel, list[float]]:
    """Train a model; return it with its loss in nats per id at each step."""
    torch.manual_seed(0)
    model = LanguageModel(dataset.vocabulary, len(PROMPTS))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    losses = []
    for batch in itertools.islice(DataLoader(dataset.iterable(epochs=None), batch_size=16, collate_fn=collate), steps):
        loss = torch.nn.functional.cross_entropy(model(batch.inputs).flatten(0, 2), batch.labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), losses


def speak(model: LanguageModel, codec: bc.DynCodecProvider, voice: str, text: str, seed: int = 0) -> np.ndarray:
    """Return what the model says, float32 `(1, samples)`, decoded while it is sampled."""
    books, none = model.slots, torch.full((1, model.slots), model.vocabulary.codebook_size)
    prompt = torch.cat([prompt_of(voice, text, model.vocabulary.size, books), none])
    reader = bc.Registry().layout(LAYOUT).reader(codec.spec, num_codebooks=books)
    session = codec.decoder_session()
    parts = [session.push(reader.push(ids)) for ids in model.sample(prompt, int(MOST_SECONDS * codec.frame_rate), seed=seed)]
    parts += [session.push(reader.finish()), session.finish()]
    return np.concatenate(parts, axis=1)


def pitch(pcm: np.ndarray, size: int = 2048) -> float:
    """Return the median pitch of loud frames in Hz: the shortest period whose autocorrelation is close to the highest."""
    frames = np.lib.stride_tricks.sliding_window_view(pcm[0], size)[:: size // 4]
    power = np.abs(np.fft.rfft(frames - frames.mean(1, keepdims=True), 2 * size)) ** 2
    correlation = np.fft.irfft(power)[:, :size] / np.arange(size, 0, -1)
    lags = np.arange(RATE // 400, RATE // 65)
    found = correlation[:, lags][correlation[:, 0] > 0.1 * correlation[:, 0].max()]
    return float(np.median(RATE / lags[(found > 0.85 * found.max(1, keepdims=True)).argmax(1)]))


def spectrum(pcm: np.ndarray) -> np.ndarray:
    """Return the long-term spectrum in decibels, relative to its mean, in 40 bands that are equally wide in mels."""
    frames = np.lib.stride_tricks.sliding_window_view(pcm[0], 1024)[::256]
    power = (np.abs(np.fft.rfft(frames * np.hanning(1024))) ** 2).mean(0)
    mels = np.log1p(np.fft.rfftfreq(1024, 1 / RATE) / 700)
    bands = np.array([power[(mels >= low) & (mels < low + mels[-1] / 40)].sum() for low in np.linspace(0, mels[-1], 40, False)])
    decibels = 10 * np.log10(bands[bands > 0])
    return decibels - decibels.mean()


@dataclass(frozen=True)
class Judgement:
    """Comparison of speech with the training voices, as they say the same through the codec.

    Attributes:
        semitones: Difference of the pitch to that of each voice.
        decibels: RMS difference of the long-term spectrum to that of the voice it should be.
    """

    semitones: dict[str, float]
    decibels: float

    @property
    def nearest(self) -> str:
        return min(self.semitones, key=self.semitones.__getitem__)


def judge(pcm: np.ndarray, voice: str, text: str, codec: bc.DynCodecProvider) -> Judgement:
    """Compare speech with the voices."""
    heard = {name: codec.decode(codec.encode(say(text, name, seed=2**32 - 1), RATE, bandwidth=KBPS)) for name in VOICES}
    semitones = {name: abs(12 * float(np.log2(pitch(pcm) / pitch(own)))) for name, own in heard.items()}
    return Judgement(semitones, float(np.sqrt(np.mean((spectrum(pcm) - spectrum(heard[voice])) ** 2))))


def main(
    target: str, recordings: int = 100, words: int = 2, steps: int = 400, text: str = "three one"
) -> dict[str, tuple[Judgement, Judgement]]:
    """Train a model, write what it says in all voices to a WAV, and return judgements of each, and of an untrained model.

    Args:
        target: Path of the WAV.
        recordings: Recordings of each voice.
        words: Words of each recording.
        steps: Steps of training.
        text: Words to say.
    """
    codec = bc.load(CODEC)
    with tempfile.TemporaryDirectory() as folder:
        listed, tokens = write_recordings(Path(folder, "recordings"), recordings, words), Path(folder, "tokens")
        executor = bc.Executor(workers=1)
        bc.tokenize_dataset(listed, codec, tokens, columns=["text", "voice"], bandwidth=KBPS, executor=executor)
        dataset = TokenDataset(tokens, layout=LAYOUT, specials=True, columns=["text", "voice"], transform=prompted)
        model, losses = train(dataset, steps)
    print(f"{len(dataset)} recordings; loss {losses[0]:.2f} to {np.mean(losses[-20:]):.2f} nats per id")
    untrained, spoken, judged = LanguageModel(model.vocabulary, len(PROMPTS)).eval(), [], {}
    for voice in VOICES:
        spoken.append(speak(model, codec, voice, text))
        judged[voice] = (judge(spoken[-1], voice, text, codec), judge(speak(untrained, codec, voice, text), voice, text, codec))
    bc.write_audio(target, np.concatenate(spoken, axis=1), codec.sample_rate)
    return judged


if __name__ == "__main__":
    for voice, (trained, untrained) in main(sys.argv[1]).items():
        print(
            f"{voice}: the pitch is {trained.semitones[voice]:.1f} semitones from its own, nearest to {trained.nearest}; "
            f"the spectrum {trained.decibels:.1f} dB, of an untrained model {untrained.decibels:.1f} dB"
        )
