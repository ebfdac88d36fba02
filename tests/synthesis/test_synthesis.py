"""Copy synthesis of unusual speech: whatever can be copied is copied, and the rest is named at the
end.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from conftest import shared
from faithful import Resemblyzer, log_mel, mel_cepstral_distortion
from forked import Forked
from sasv.audio import read_audio
from sasv.cli import main
from sasv.commands import SynthesizeOptions, synthesize
from sasv.core.errors import SasvError
from sasv.report.plots import plot_spectrograms
from sasv.synthesis.plan import plan_units
from sasv.tables import Table, load_utterances
from sasv.vocoders import ALWAYS, VOCODERS, make_vocoder
from sasv.vocoders.neural import Mel


def table_of_copies(folder, waves, rates=None):
    """Write files and their table."""
    (folder / "speech").mkdir(exist_ok=True)
    for name, wave in waves.items():
        soundfile.write(
            folder / "speech" / f"{name}.wav", wave, (rates or {}).get(name, 16000), subtype="FLOAT"
        )
    columns = {
        "utterance": list(waves),
        "path": [f"speech/{name}.wav" for name in waves],
        "speaker": ["s"] * len(waves),
    }
    Table.build(columns).save(folder / "utterances.tsv")
    return str(folder / "utterances.tsv")


def test_unreadable_speech_is_reported_and_the_rest_is_copied(tmp_path, voice):
    good = voice(16000)
    nan = good.copy()
    nan[500] = np.nan
    waves = {
        "good": good,
        "silence": np.zeros(16000),
        "short": good[:320],
        "nan": nan,
        "gone": good,
    }
    table = table_of_copies(tmp_path, waves)
    (tmp_path / "speech" / "gone.wav").unlink()
    with pytest.raises(SasvError, match="3 utterances could not be copied") as caught:
        synthesize(SynthesizeOptions(table, str(tmp_path / "out"), list(ALWAYS)))
    assert "silent" in str(caught.value)
    copies = load_utterances(tmp_path / "out" / "utterances.tsv").where("label=spoof")
    assert [name.partition("~")[0] for name in copies.ids] == ["good"] * 3 + [
        "short"
    ] * 3  # 20 ms are enough


@pytest.mark.parametrize("name", ALWAYS)
def test_other_rates_channels_and_unvoiced_speech(tmp_path, voice, name):
    rng = np.random.default_rng(0)
    whisper = (0.05 * rng.standard_normal(16000)).astype(np.float32)
    waves = {
        "narrow": voice(8000),
        "stereo": np.stack([voice(16000)] * 2, axis=1),
        "whisper": whisper,
    }
    table = table_of_copies(tmp_path, waves, {"narrow": 8000})
    copies = synthesize(SynthesizeOptions(table, str(tmp_path / "out"), [name], suffix="wav"))
    for path in copies.paths:
        wave, rate = soundfile.read(path)
        assert (rate, wave.shape) == (16000, (16000,))
        assert np.isfinite(wave).all() and 0.001 < np.abs(wave).max() < 1


@pytest.mark.speech
@pytest.mark.parametrize("name", ALWAYS)
def test_a_copy_keeps_speech_and_differs_from_it(name):
    """The length is the same to the sample, the level within 1 dB, and F0 within 5 %, and nothing
    is clipped; the spectrum differs.
    """
    wave = read_audio(shared("speech", "LibriSpeech/test-other/1688/142285/1688-142285-0003.flac"))
    copy = make_vocoder(name)(wave, seed=3)
    assert copy.shape == wave.shape and np.abs(copy).max() < 1
    assert abs(20 * np.log10(copy.std() / wave.std())) < 1
    pyworld = pytest.importorskip("pyworld")
    contours = [pyworld.dio(np.asarray(part, np.float64), 16000)[0] for part in (wave, copy)]
    both = (contours[0] > 0) & (contours[1] > 0)
    assert both.sum() > 0.6 * (contours[0] > 0).sum()
    assert np.median(np.abs(np.log(contours[1][both] / contours[0][both]))) < 0.05
    assert np.abs(copy - wave).max() > 0.05 * np.abs(wave).max()


SPEAKERS = (
    "1688/142285/1688-142285-0003",
    "1998/15444/1998-15444-0006",
    "2033/164914/2033-164914-0002",
)
"""One utterance each of three speakers of LibriSpeech test-other."""


@pytest.fixture(scope="module")
def originals():
    files = [shared("speech", f"LibriSpeech/test-other/{name}.flac") for name in SPEAKERS]
    return [read_audio(file)[: 6 * 16000] for file in files]


@pytest.mark.slow
@pytest.mark.speech
@pytest.mark.parametrize("name", (*ALWAYS, pytest.param("cargan", marks=pytest.mark.long)))
def test_a_copy_is_faithful(originals, name):
    """The mel-cepstral distortion is below 8 dB (it is 14 dB between speakers), but the spectrum
    differs.
    """
    if name == "cargan":
        if importlib.util.find_spec("cargan") is None:
            pytest.skip("cargan is not installed: pip install --no-deps cargan")
        originals = [wave[: 2 * 16000] for wave in originals[:1]]  # 2 s of computing a second
    vocoder = make_vocoder(name)
    for wave in originals:
        copy = vocoder(wave, seed=1)
        assert mel_cepstral_distortion(wave, copy) < 8
        assert np.abs(log_mel(wave) - log_mel(copy)).mean() > 0.1
    others = [
        mel_cepstral_distortion(a[:32000], b[:32000])
        for a in originals
        for b in originals
        if a is not b
    ]
    assert all(distortion > 8 for distortion in others)


@pytest.mark.slow
@pytest.mark.speech
@pytest.mark.parametrize("name", ALWAYS)
def test_an_independent_encoder_takes_a_copy_for_its_speaker(originals, name):
    """With Resemblyzer, the similarity is above 0.75, which no pair of speakers reaches, and
    highest for the original.
    """
    encoder, vocoder = Resemblyzer(), make_vocoder(name)
    people = np.stack([encoder(wave) for wave in originals])
    copies = np.stack([encoder(vocoder(wave, seed=1)) for wave in originals])
    similar = copies @ people.T
    assert (np.diag(similar) > 0.75).all()
    assert (people @ people.T)[~np.eye(len(people), dtype=bool)].max() < 0.75
    assert (similar.argmax(axis=1) == np.arange(len(people))).all()


def test_one_vocoder_an_utterance_is_seeded_and_uses_all(corpus, tmp_path):
    table = load_utterances(corpus / "utterances.tsv", "label=bonafide")
    plans = [plan_units(table, ALWAYS, tmp_path, seed, "one") for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]
    drawn = [unit.vocoder for unit in plans[0].units]
    assert len(drawn) == len(table) and set(drawn) == set(ALWAYS)
    assert len(plan_units(table, ALWAYS, tmp_path).units) == 3 * len(table)


def test_output_folders_mirror_the_source_folders(tmp_path, voice):
    for folder, name in (("a/x", "1.wav"), ("a/y", "1.wav"), ("b/x", "1.flac"), ("b/x", "1.wav")):
        (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / folder / name, voice(8000), 16000)
    paths = ["in/a/x/1.wav", "in/a/y/1.wav", "in/b/x/1.wav"]
    columns = {"utterance": ["u", "v", "w"], "path": paths, "speaker": ["s"] * 3}
    Table.build(columns).save(tmp_path / "utterances.tsv")
    table = load_utterances(tmp_path / "utterances.tsv")
    units = plan_units(table, ["world"], tmp_path / "out").units
    made = [unit.path.removeprefix(f"{tmp_path}/out/world/") for unit in units]
    assert made == ["a/x/1.flac", "a/y/1.flac", "b/x/1.flac"]
    columns = {
        "utterance": ["u", "v"],
        "path": ["in/b/x/1.wav", "in/b/x/1.flac"],
        "speaker": ["s"] * 2,
    }
    Table.build(columns).save(tmp_path / "utterances.tsv")
    units = plan_units(
        load_utterances(tmp_path / "utterances.tsv"), ["world"], tmp_path / "out"
    ).units
    assert len({unit.path for unit in units}) == 2


def test_codec_copies_of_bona_fide_speech_stay_bona_fide(tmp_path, voice):
    table = table_of_copies(tmp_path, {"a": voice(16000), "b": voice(16000, 1)})
    trials = {
        "speaker": ["s", "t"],
        "utterance": ["a", "a"],
        "label": ["target", "nontarget"],
        "attack": ["-", "-"],
    }
    Table.build(trials).save(tmp_path / "trials.tsv")
    vocoders = ["mulaw", "griffin-lim"]
    synthesize(
        SynthesizeOptions(
            table, str(tmp_path / "out"), vocoders, trials=str(tmp_path / "trials.tsv")
        )
    )
    copies = Table.load(tmp_path / "out" / "utterances.tsv")
    rows = dict(
        zip(copies.texts("utterance"), zip(*map(copies.texts, ("label", "attack", "codec"))))
    )
    assert rows["a~mulaw"] == ("bonafide", "-", "mulaw")
    assert rows["a~griffin-lim"] == ("spoof", "griffin-lim", "-") and rows["a"] == (
        "bonafide",
        "-",
        "-",
    )
    made = Table.load(tmp_path / "out" / "trials.tsv")
    found = set(zip(made.texts("speaker"), made.texts("utterance"), made.texts("label")))
    assert found - {("s", "a", "target"), ("t", "a", "nontarget")} == {
        ("s", "a~mulaw", "target"),
        ("t", "a~mulaw", "nontarget"),
        ("s", "a~griffin-lim", "spoof"),
    }


@pytest.mark.parametrize("name", [name for name in VOCODERS if VOCODERS.get(name).condition])
def test_every_codec_keeps_length_and_most_of_the_speech(voice, name):
    if name not in ("8khz", "mulaw", "alaw"):
        pytest.importorskip("av", reason='PyAV is not installed: pip install "sasv[m4a]"')
    wave = voice(24000)
    copy = make_vocoder(name)(wave, seed=1)
    assert copy.shape == wave.shape
    mel = Mel(
        16000, 512, 512, 128, 20, 400.0, 3200.0
    )  # the band that every codec keeps, whatever its delay and phase
    before, after = (mel(torch.from_numpy(x)[None]).flatten().numpy() for x in (wave, copy))
    assert np.corrcoef(before, after)[0, 1] > 0.8


@pytest.mark.slow
def test_batches_and_single_files_give_the_same_copies(tmp_path, voice):
    waves = {f"u{number}": voice(8000 + 1000 * number, number) for number in range(5)} | {
        "silent": np.zeros(8000)
    }
    table = table_of_copies(tmp_path, waves)
    copies = {}
    for batch in (1, 2):
        out = tmp_path / f"out{batch}"
        with pytest.raises(SasvError, match="2 utterances|1 utterances"):
            synthesize(
                SynthesizeOptions(table, str(out), ["source-filter", "griffin-lim"], batch=batch)
            )
        copies[batch] = (
            load_utterances(out / "utterances.tsv").where("label=spoof").table.texts("sha256")
        )
    assert copies[1] == copies[2] and len(copies[1]) == 10


def test_vocoders_are_named_once_each(tmp_path, voice):
    table = table_of_copies(tmp_path, {"a": voice(8000)})
    for names, message in (([], "--vocoders is empty"), (["world", "world"], "names world twice")):
        with pytest.raises(SasvError, match=message):
            synthesize(SynthesizeOptions(table, str(tmp_path / "out"), names))


def test_copies_by_another_seed_are_refused(tmp_path, voice):
    table, out = table_of_copies(tmp_path, {"a": voice(8000)}), str(tmp_path / "out")
    synthesize(SynthesizeOptions(table, out, ["griffin-lim"]))
    synthesize(SynthesizeOptions(table, out, ["griffin-lim", "source-filter"]))
    with pytest.raises(
        SasvError, match="made with another seed or other weights; choose another --out"
    ):
        synthesize(SynthesizeOptions(table, out, ["griffin-lim"], seed=1))
    with pytest.raises(SasvError, match="--weights names hifi-gan, but --vocoders only names"):
        synthesize(SynthesizeOptions(table, out, ["griffin-lim"], {"hifi-gan": "x"}))


def test_file_deleted_during_synthesis_does_not_stop_the_others(tmp_path, voice, monkeypatch):
    from sasv.synthesis import worker

    table = table_of_copies(tmp_path, {"a": voice(8000), "b": voice(8000, 1), "c": voice(8000, 2)})
    read, seen = worker.read_speech, []

    def vanishing(path, **options):
        seen.append(path)
        if len(seen) == 1:
            (tmp_path / "speech" / "b.wav").unlink()
        return read(path, **options)

    monkeypatch.setattr(worker, "read_speech", vanishing)
    with pytest.raises(SasvError, match=r"1 utterances could not be copied.*b\.wav: no such file"):
        synthesize(SynthesizeOptions(table, str(tmp_path / "out"), ["griffin-lim"]))
    copies = load_utterances(tmp_path / "out" / "utterances.tsv").where("label=spoof")
    assert list(copies.ids) == ["a~griffin-lim", "c~griffin-lim"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALWAYS)
def test_long_recordings_are_copied_in_pieces(monkeypatch, voice, name):
    """Cross-faded pieces have the level and the pitch of the whole, without a gap."""
    from sasv.vocoders import base

    wave = voice(5 * 16000)
    whole = make_vocoder(name)(wave)
    monkeypatch.setattr(base, "PIECE_SECONDS", 1.0)
    pieces = make_vocoder(name)(wave)
    assert pieces.shape == wave.shape
    levels = [np.sqrt(np.square(x.reshape(-1, 2000)).mean(axis=1)) for x in (whole, pieces)]
    assert np.abs(20 * np.log10(levels[1] / levels[0])).max() < 6
    assert np.median(np.abs(20 * np.log10(levels[1] / levels[0]))) < 1


@pytest.mark.slow
def test_recording_of_an_hour_is_copied_in_bounded_memory(tmp_path, voice, monkeypatch):
    """A WAV file of 3,600 s is copied in bounded memory. The vocoder, which receives pieces of a
    minute, does nothing here.
    """
    import resource

    monkeypatch.setattr(
        VOCODERS.get("source-filter"), "resynthesise", lambda self, wave, seed: 0.9 * wave
    )
    wave = np.tile(voice(16000 * 60), 60)
    (tmp_path / "speech").mkdir()
    soundfile.write(tmp_path / "speech" / "hour.wav", wave, 16000)
    columns = {
        "utterance": ["hour"],
        "path": ["speech/hour.wav"],
        "speaker": ["s"],
        "seconds": ["3600"],
    }
    Table.build(columns).save(tmp_path / "utterances.tsv")
    del wave
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    options = SynthesizeOptions(
        str(tmp_path / "utterances.tsv"), str(tmp_path / "out"), ["source-filter"]
    )
    copies = synthesize(options)
    assert soundfile.info(copies.paths[0]).frames == 3600 * 16000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3e6  # kB


@pytest.mark.slow
def test_the_page_of_vocoders_names_each_and_the_picture_is_made(tmp_path, voice):
    page = (Path(__file__).parents[2] / "docs" / "vocoders.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    assert set(VOCODERS) <= {name.strip() for cell in rows for name in cell.split(",")}
    pytest.importorskip(
        "matplotlib", reason='matplotlib is not installed: pip install "sasv[plots]"'
    )
    plot_spectrograms(
        {name: voice(16000, seed) for seed, name in enumerate("abc")}, 16000, tmp_path / "plot.png"
    )
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_weights_on_the_command_line_and_in_yaml(tmp_path, voice, capsys):
    """Both give the weights of a vocoder, and a mistake in them gives one line."""
    table = table_of_copies(tmp_path, {"a": voice(8000)})
    words = ["synthesize", table, "--out", str(tmp_path / "out"), "--vocoders", "[hifi-gan]"]
    missing = str(tmp_path / "g_02500000")
    (tmp_path / "options.yaml").write_text(f"weights:\n  hifi-gan: {missing}\n")
    for given in (["--weights.hifi-gan", missing], ["--config", str(tmp_path / "options.yaml")]):
        assert main(words + given) != 0
        said = capsys.readouterr().err.strip().splitlines()
        assert f"{tmp_path}/config.json: there is no such file" in said[-1]
    assert main(words) != 0
    assert "--weights.hifi-gan PATH" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_share_the_copies_of_a_table(tmp_path, voice):
    """Divided by rank, as under torchrun, they make the same files as one process."""
    table = table_of_copies(tmp_path, {f"u{number}": voice(8000, number) for number in range(5)})
    vocoders = ["griffin-lim", "source-filter"]
    synthesize(SynthesizeOptions(table, str(tmp_path / "one"), vocoders))
    words = ["synthesize", table, "--out", tmp_path / "two"]
    words += ["--vocoders", "[griffin-lim,source-filter]"]
    Forked(words, tmp_path / "said", 2).finish()
    sums = [Table.load(tmp_path / run / "utterances.tsv").texts("sha256") for run in ("one", "two")]
    assert sums[0] == sums[1]
