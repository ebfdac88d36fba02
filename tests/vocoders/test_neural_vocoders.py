"""Vocoders with networks, with random weights in the official layouts, and real weights if they
come with a package.
"""

import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from conftest import shared
from sasv.audio import read_audio
from sasv.core.errors import CheckpointError, MissingExtra, SasvError
from sasv.vocoders import VOCODERS, make_vocoder
from sasv.vocoders.hifi_gan import Generator
from sasv.vocoders.hn_nsf import Network, filtered, sinc_filters
from sasv.vocoders.neural import Mel, NeuralVocoder
from sasv.vocoders.nsf_hifi_gan import SourceGenerator, pitch

V1 = {
    "resblock": "1",
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
}
V3 = V1 | {
    "resblock": "2",
    "upsample_rates": [8, 8, 4],
    "upsample_kernel_sizes": [16, 16, 8],
    "resblock_kernel_sizes": [3, 5, 7],
    "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]],
}


def scattered(network):
    """Return random weights, large enough to reveal a wrong layer."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            fan = max(1, parameter[0].numel()) if parameter.dim() > 1 else 100
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan**-0.5)
    return network.eval()


def official(folder, network, settings, file):
    """Write weights in the form of the official checkpoints: split by weight normalisation, with
    config.json.
    """
    entries = {}
    for name, value in network.state_dict().items():
        if name.endswith("weight") and value.dim() == 3 and "noise_convs" not in name:
            size = value.flatten(1).norm(dim=1)[:, None, None]
            entries |= {f"{name}_g": size, f"{name}_v": 3 * value}
        else:
            entries[name] = value
    folder.mkdir(exist_ok=True)
    torch.save({"generator": entries}, folder / file)
    (folder / "config.json").write_text(json.dumps(settings))
    return str(folder / file)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Vocoder -> small random weights in the layout of the official ones."""
    folder = tmp_path_factory.mktemp("weights")
    transformers = pytest.importorskip("transformers")
    small = {
        "univnet": (
            "UnivNetModel",
            "UnivNetConfig",
            {"model_hidden_channels": 8},
        ),
        "encodec": (
            "EncodecModel",
            "EncodecConfig",
            {"num_filters": 4, "hidden_size": 16, "codebook_size": 32},
        ),
        "dac": (
            "DacModel",
            "DacConfig",
            {"encoder_hidden_size": 8, "decoder_hidden_size": 64, "codebook_size": 32},
        ),
        "mimi": (
            "MimiModel",
            "MimiConfig",
            {"num_filters": 4, "hidden_size": 32, "codebook_size": 32},
        ),
    }
    small["mimi"][2].update(
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
    )
    small["mimi"][2].update(
        codebook_dim=8, vector_quantization_hidden_dimension=8, upsample_groups=32
    )
    paths = {
        "hifi-gan": official(folder / "v1", scattered(Generator(V1)), V1, "g_02500000"),
        "nsf-hifi-gan": official(folder / "nsf", scattered(SourceGenerator(V1)), V1, "model.ckpt"),
    }
    torch.save(scattered(Network()).state_dict(), folder / "trained_network.pt")
    paths["hn-nsf"] = str(folder / "trained_network.pt")
    for name, (model, config, sizes) in small.items():
        torch.manual_seed(0)
        getattr(transformers, model)(getattr(transformers, config)(**sizes)).save_pretrained(
            folder / name
        )
        paths[name] = str(folder / name)
    return paths


NETWORKS = ("hifi-gan", "hn-nsf", "nsf-hifi-gan", "univnet", "encodec", "dac", "mimi")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long) if name == "hn-nsf" else name for name in NETWORKS],
)
def test_batched_is_single_and_length_and_level_are_kept(weights, voice, name):
    vocoder = make_vocoder(name, weights[name])
    waves = [voice(8000), voice(3000, 1), voice(12000, 2)]
    single = [vocoder(wave, 16000, seed) for seed, wave in enumerate(waves)]
    vocoder.device = torch.device(
        "cpu"
    )  # computes as a GPU does: what is not the word cpu takes batches
    together = vocoder.many(waves, 16000, [0, 1, 2])
    for wave, one, other in zip(waves, single, together):
        assert one.shape == wave.shape and np.isfinite(one).all() and np.abs(one).max() < 1
        levels = [np.sqrt(np.square(x, dtype=np.float64).mean()) for x in (wave, one)]
        assert 0.5 < levels[1] / levels[0] < 1.001  # lower only where peaks would clip
        np.testing.assert_allclose(one, other, atol=2e-4 * np.abs(one).max())
    assert vocoder.rate in (16000, 22050, 24000)


@pytest.mark.slow
def test_pieces_join_without_a_seam(weights, voice):
    """Samples outside the receptive field have no effect, so pieces of one second give the same as
    one of eight seconds.
    """
    vocoder = make_vocoder("hifi-gan", weights["hifi-gan"])
    wave = voice(4 * 22050)
    whole = vocoder.resynthesise_many([wave], [0])[0]
    vocoder.piece_seconds = 1.0
    np.testing.assert_allclose(
        vocoder.resynthesise_many([wave], [0])[0], whole, atol=1e-5 * np.abs(whole).max()
    )


@pytest.mark.slow
def test_generator_equals_that_of_transformers():
    transformers = pytest.importorskip("transformers")
    keys = (
        "upsample_rates",
        "upsample_kernel_sizes",
        "upsample_initial_channel",
        "resblock_kernel_sizes",
    )
    settings = {key: V1[key] for key in (*keys, "resblock_dilation_sizes")}
    config = transformers.SpeechT5HifiGanConfig(model_in_dim=80, normalize_before=False, **settings)
    theirs = scattered(transformers.SpeechT5HifiGan(config))
    ours = Generator(V1)
    entries = theirs.state_dict()
    ours.load_state_dict(
        {
            name.replace("upsampler", "ups"): value
            for name, value in entries.items()
            if name not in ("mean", "scale")
        }
    )
    mel = torch.randn(2, 80, 20)
    with torch.inference_mode():
        made, wanted = ours(mel), theirs(mel.transpose(1, 2))
    assert made.std() > 0.05
    torch.testing.assert_close(made, wanted, atol=1e-6, rtol=0)


def test_mels_equal_those_of_transformers(voice):
    transformers = pytest.importorskip("transformers")
    wave = voice(24000)
    theirs = transformers.UnivNetFeatureExtractor().mel_spectrogram(wave)
    ours = Mel(24000, 1024, 1024, 256, 100, 0.0, 12000.0)(torch.from_numpy(wave)[None])[0].T.numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_hifi_gan_v3_and_weights_that_do_not_fit(tmp_path, voice):
    path = official(tmp_path / "v3", scattered(Generator(V3)), V3, "g_1")
    copy = make_vocoder("hifi-gan", path)(voice(16000))
    assert copy.shape == (16000,) and copy.std() > 0
    (tmp_path / "v3" / "config.json").write_text(json.dumps(V1))
    with pytest.raises(CheckpointError, match="does not fit the network of its settings"):
        make_vocoder("hifi-gan", path)
    (tmp_path / "v3" / "config.json").write_text(json.dumps(V1 | {"hop_size": 300}))
    with pytest.raises(CheckpointError, match="is not the hop_size 300"):
        make_vocoder("hifi-gan", path)
    (tmp_path / "v3" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="lacks resblock"):
        make_vocoder("hifi-gan", path)
    (tmp_path / "v3" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="put the settings file into the folder"):
        make_vocoder("hifi-gan", path)


def test_source_signal_follows_f0():
    """Voiced parts consist of sines at F0 and its harmonics (computed by hand: 100 Hz, first
    harmonic only), unvoiced parts of noise.
    """
    source = SourceGenerator(V1).m_source
    with torch.no_grad():
        source.l_linear.weight.copy_(torch.tensor([[1.0] + [0.0] * 8]))
        source.l_linear.bias.zero_()
        quiet = torch.zeros(1, 8000, 9)
        wave = source(torch.full((1, 8000), 100.0), quiet, 8000)[0, 0]
        times = torch.arange(1, 8001) / 8000
        torch.testing.assert_close(
            wave, torch.tanh(0.1 * torch.sin(2 * torch.pi * 100 * times)), atol=1e-5, rtol=0
        )
        hiss = source(torch.zeros(1, 8000), torch.ones(1, 8000, 9), 8000)
        torch.testing.assert_close(
            hiss, torch.full((1, 1, 8000), np.tanh(0.1 / 3)), atol=1e-6, rtol=0
        )


def test_f0_in_threads_is_that_of_each_waveform(voice):
    """Harvest gives the same bytes in several threads as alone."""
    pyworld = pytest.importorskip("pyworld")
    waves = np.stack([voice(8000, seed) for seed in range(4)])
    alone = [pyworld.harvest(wave.astype(np.float64), 16000, frame_period=5.0)[0] for wave in waves]
    wanted = np.stack(alone)[:, :100].astype(np.float32)
    assert (wanted > 0).any() and (wanted[0] != wanted[1]).any()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda wave: pitch(pyworld, wave, 16000, 80), waves))
    np.testing.assert_array_equal(found, wanted)


def test_world_uses_another_f0_than_the_neural_source_filter_models(voice):
    """They cannot share it without a change of their copies."""
    pyworld = pytest.importorskip("pyworld")
    wave = voice(16000).astype(np.float64)
    rough, times = pyworld.dio(wave, 16000)
    of_world = pyworld.wav2world(wave, 16000)[0]
    np.testing.assert_array_equal(of_world, pyworld.stonemask(wave, rough, times, 16000))
    of_the_others = pyworld.harvest(wave, 16000, frame_period=5.0)[0]
    assert of_world.shape == of_the_others.shape
    assert np.abs(of_world - of_the_others).max() > 1


def test_batches_on_a_gpu_are_full():
    """A batch has as much speech as it may have, with pieces of any length; on a CPU it has one
    piece.
    """
    shapes = []

    class Same(NeuralVocoder):
        rate, hop, batch_seconds = 16000, 100, 8.0

        def prepared(self, wave):
            return wave.max()

        def generate(self, waves, seeds, prepared):
            shapes.append(tuple(waves.shape))
            np.testing.assert_array_equal(waves.amax(1), prepared)
            return waves

    vocoder = Same(device="gpu")
    vocoder.device = torch.device("cpu")  # computes as a GPU does
    waves = [np.full(8000, 0.1 * index, np.float32) for index in range(1, 8)]
    copies = vocoder.resynthesise_many([*waves, np.ones(64000, np.float32)], range(8))
    for wave, copy in zip(waves, copies):
        np.testing.assert_array_equal(copy, wave)
    # With context, pieces of 0.5 s and 4 s have 1.5 s and 5 s; the batch may have 8 s.
    assert shapes == [(5, 24000), (2, 24000), (1, 80000)]
    shapes.clear()
    Same().resynthesise_many(waves, range(7))
    assert shapes == [(1, 24000)] * 7


def test_harmonics_and_noise_meet_at_the_cut_off():
    """Checks the filters by hand: a fixed cut-off is a plain convolution, and each filter passes
    its own band and stops the other.
    """
    low, high = sinc_filters(torch.full((1, 400, 1), 0.5))
    signs = 1 - 2 * (torch.arange(31) % 2)
    torch.testing.assert_close(low[0, 0].sum(), torch.tensor(1.0))
    assert abs(high[0, 0].sum()) < 0.01 and abs((low[0, 0] * signs).sum()) < 0.01
    assert abs((high[0, 0] * signs).sum().abs() - 1) < 1e-6
    signal = torch.randn(1, 400, generator=torch.Generator().manual_seed(0))
    wanted = np.convolve(signal[0].numpy(), low[0, 0].numpy())[:400]
    np.testing.assert_allclose(filtered(signal, low)[0].numpy(), wanted, atol=1e-5)


@pytest.mark.slow
def test_layout_of_the_harmonic_plus_noise_model(weights):
    """The entries and sizes of the checkpoint of NII, and its features for a tone, computed by
    hand.
    """
    entries = {name: tuple(value.shape) for name, value in Network().state_dict().items()}
    assert len(entries) == 4 + 8 + 2 + 4 + 1 + 2 + 5 * 14 + 9
    assert entries["m_cond.l_blstm.l_blstm.weight_ih_l0_reverse"] == (128, 81)
    assert entries["m_cond.l_upsamp.l_ave1.weight"] == (64, 1, 80)
    assert entries["m_cond.l_cut_f_smooth.weight"] == (1, 1, 320)
    assert entries["m_source.l_linear.weight"] == (1, 8)
    assert entries["m_filter.l_har_blocks.4.l_convs.9.weight"] == (64, 64, 3)
    assert entries["m_filter.l_noi_blocks.0.l_ff_2.weight"] == (16, 64)
    vocoder = make_vocoder("hn-nsf", weights["hn-nsf"])
    tone = torch.sin(2 * torch.pi * 3000 * torch.arange(16000) / 16000)[None]
    mel = vocoder.features(tone)
    assert mel.shape == (1, 200, 80)
    bank = vocoder.filters
    assert bank[0].count_nonzero() == 1 and bank[0, 0] == 0.064  # the mean alone
    assert mel[0, 100].argmax() == bank[:, 192].argmax()  # 3000 Hz is bin 192 of 1024
    torch.testing.assert_close(
        (bank[1:].sum(1) * 16000 / 1024)[20:], torch.ones(59), atol=0.05, rtol=0
    )  # areas


@pytest.mark.parametrize("name", [name for name in VOCODERS if VOCODERS.get(name).needs_weights])
def test_missing_weights_are_reported_with_what_is_needed(tmp_path, name):
    kind = VOCODERS.get(name)
    assert kind.licence and kind.source and kind.mel
    with pytest.raises(SasvError, match=rf"--weights.{name} PATH") as caught:
        make_vocoder(name)
    assert kind.source in str(caught.value)
    with pytest.raises((CheckpointError, MissingExtra)) as caught:
        make_vocoder(name, str(tmp_path / "nothing" / "g"))
    assert "nothing" in str(caught.value) or "pip install" in str(caught.value)


def test_pickled_code_is_not_executed(tmp_path, weights):
    import pickle

    class Bad:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    (tmp_path / "g").write_bytes(pickle.dumps(Bad()))
    (tmp_path / "config.json").write_text(json.dumps(V1))
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        make_vocoder("hifi-gan", str(tmp_path / "g"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("package", ["transformers", "bigvgan", "pyworld"])
def test_a_missing_package_is_named(weights, monkeypatch, tmp_path, package):
    for name in (package, f"{package}.bigvgan"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    vocoder = {"transformers": "univnet", "bigvgan": "bigvgan", "pyworld": "nsf-hifi-gan"}[package]
    with pytest.raises(MissingExtra, match=r'pip install "sasv\['):
        make_vocoder(vocoder, weights.get(vocoder, str(tmp_path)))


def test_bigvgan(tmp_path, voice):
    package = pytest.importorskip(
        "bigvgan.bigvgan", reason='bigvgan is not installed: pip install "sasv[bigvgan]"'
    )
    env = pytest.importorskip("bigvgan.env")
    settings = V1 | {"activation": "snakebeta", "snake_logscale": True}
    network = package.BigVGAN(env.AttrDict(settings))
    torch.save({"generator": network.state_dict()}, tmp_path / "bigvgan_generator.pt")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    vocoder = make_vocoder("bigvgan", str(tmp_path / "bigvgan_generator.pt"))
    mel = torch.randn(1, 80, 12)
    with torch.inference_mode():
        torch.testing.assert_close(
            vocoder.generator(mel), network.eval()(mel), atol=1e-5, rtol=1e-4
        )
    assert vocoder(voice(8000)).shape == (8000,)


@pytest.mark.speech
@pytest.mark.slow
def test_cargan_copies_real_speech():
    """The weights of this network come with a package. Its copies are close to the original in mel
    features, but not in samples.
    """
    if importlib.util.find_spec("cargan") is None:
        pytest.skip("cargan is not installed: pip install --no-deps cargan")
    wave = read_audio(shared("speech", "LibriSpeech/test-other/1688/142285/1688-142285-0003.flac"))[
        16000:32000
    ]
    copy = make_vocoder("cargan")(wave)
    assert copy.shape == wave.shape and abs(20 * np.log10(copy.std() / wave.std())) < 1
    mels = [
        Mel(16000, 512, 512, 128, 40, 0.0, 7600.0)(torch.from_numpy(x)[None])[0]
        for x in (wave, copy)
    ]
    assert np.corrcoef(mels[0].flatten(), mels[1].flatten())[0, 1] > 0.95
    assert np.abs(copy - wave).max() > 0.2 * np.abs(wave).max()


def test_cargan_without_its_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SasvError, match="pip install --no-deps cargan"):
        make_vocoder("cargan")
