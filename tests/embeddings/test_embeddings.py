"""Models and extraction: single files, many files, shards, resuming, failures, and scoring."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from conftest import shared
from sasv import load_model
from sasv.cli.present import evaluate_text
from sasv.commands import EmbedOptions, EvaluateOptions, embed, evaluate
from sasv.core.errors import AudioError, SasvError, TableError
from sasv.decision import SpeechLimits
from sasv.embeddings import extract as extraction
from sasv.embeddings.extract import Embeddings, plan_batches
from sasv.scores import enrolment_vectors, score_trials, unit
from sasv.tables import load_scores, load_utterances


@pytest.fixture
def model(trained):
    return str(trained / "model.safetensors")


def test_load_model_embeds_paths_and_waveforms(model, corpus):
    loaded = load_model(model)
    path = corpus / "audio" / "s1-0.wav"
    wave, _ = soundfile.read(path, dtype="float32")
    vector = loaded.embed(path)
    assert vector.shape == (24,)
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, loaded.embed(str(path)))
    np.testing.assert_array_equal(vector, loaded.embed(wave))
    np.testing.assert_array_equal(vector, loaded.embed(torch.from_numpy(wave)))
    np.testing.assert_array_equal(loaded.embed(wave, rate=16000), vector)
    assert loaded.score(loaded.embed(np.repeat(wave, 2), rate=32000), vector) > 0.9
    assert loaded.score(vector, 3 * vector) == pytest.approx(1.0)
    other = loaded.embed(corpus / "audio" / "s2-0.wav")
    buzz = [path, corpus / "audio" / "s2-0.wav"]  # of no speech, which enrolment refuses
    with pytest.raises(SasvError, match=r"s1-0\.wav: no speech was found in it"):
        loaded.enrol(buzz)
    anything = SpeechLimits(min_enrolment=0, min_test=0)
    np.testing.assert_allclose(loaded.enrol(buzz, anything), (vector + other) / 2, rtol=1e-6)
    with pytest.raises(AudioError, match="too short"):
        loaded.embed(wave[:5])
    with pytest.raises(SasvError, match="at least one recording"):
        loaded.enrol([])


def test_a_large_encoder_on_a_cpu_embeds_one_after_another_and_gives_the_same(model, voice):
    loaded = load_model(model, "cpu")
    assert not loaded.singly
    waves = [voice(samples, samples) for samples in (9000, 16000, 12000)]
    together = loaded.embed_many(waves)
    loaded.singly = True
    singly = loaded.embed_many(waves)
    assert singly.shape == together.shape
    np.testing.assert_allclose(singly, together, atol=1e-5 * np.abs(together).max())


def test_plan_bounds_padding():
    seconds = np.array([1.0, 9.0, 2.0, 30.0, 1.5, 100.0])
    batches = plan_batches(seconds, 20.0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(6))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * seconds[batch].max() <= 20.0


def run(model, corpus, out, **options):
    return embed(
        EmbedOptions(str(corpus / "utterances.tsv"), str(out), model, batch_seconds=5.0, **options)
    )


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(extraction, "CHUNK_SECONDS", 6.0)


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.slow
def test_sharded_equals_whole_and_single(model, corpus, tmp_path, small_chunks):
    whole = run(model, corpus, tmp_path / "whole")
    assert run(model, corpus, tmp_path / "parts", shard="2/3") is None
    assert run(model, corpus, tmp_path / "parts", shard="1/3") is None
    joined = run(model, corpus, tmp_path / "parts", shard="3/3")
    np.testing.assert_array_equal(whole.vectors, joined.vectors)
    assert files(tmp_path / "whole") == files(tmp_path / "parts")
    assert set(files(tmp_path / "whole")) == {"embeddings.npy", "index.tsv", "embeddings.json"}
    loaded = load_model(model)
    table = load_utterances(corpus / "utterances.tsv")
    assert whole.utterances == table.ids
    for row in (0, 17, len(table) - 1):
        single = loaded.embed(table.path(row))
        assert np.linalg.norm(whole.vectors[row] - single) / np.linalg.norm(single) < 1e-5
    again = Embeddings.load(tmp_path / "whole")
    np.testing.assert_array_equal(again.vectors, whole.vectors)


@pytest.mark.slow
def test_torchrun_ranks_are_shards(model, corpus, tmp_path, small_chunks, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run(model, corpus, tmp_path / "x") is None
    monkeypatch.setenv("RANK", "0")
    assert run(model, corpus, tmp_path / "x") is not None
    with pytest.raises(SasvError, match="write it as i/n"):
        run(model, corpus, tmp_path / "y", shard="3/2")


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_result(
    model, corpus, tmp_path, small_chunks, monkeypatch, capsys
):
    run(model, corpus, tmp_path / "whole")
    original = extraction.embed_rows
    done = []

    def cut(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return original(*arguments)

    monkeypatch.setattr(extraction, "embed_rows", cut)
    with pytest.raises(KeyboardInterrupt):
        run(model, corpus, tmp_path / "cut")
    monkeypatch.setattr(extraction, "embed_rows", original)
    run(model, corpus, tmp_path / "cut")
    assert "2 of" in capsys.readouterr().err
    assert files(tmp_path / "whole") == files(tmp_path / "cut")
    run(model, corpus, tmp_path / "cut")
    assert "already complete" in capsys.readouterr().err


def test_another_model_does_not_reuse_embeddings(model, corpus, trained, tmp_path, capsys):
    run(model, corpus, tmp_path / "x")
    run(str(trained / "model.safetensors"), corpus, tmp_path / "x")
    assert "already complete" in capsys.readouterr().err
    run(model, corpus, tmp_path / "x", where="split=dev")
    assert "already complete" not in capsys.readouterr().err


def test_embeddings_of_another_precision_are_not_reused(model, corpus, tmp_path):
    out = tmp_path / "x"
    exact = run(model, corpus, out)
    fast = run(model, corpus, out, precision="bfloat16")
    assert Embeddings.load(out).precision == fast.precision == "bfloat16"
    assert json.loads((out / "embeddings.json").read_text())["precision"] == "bfloat16"
    assert np.abs(fast.vectors - exact.vectors).max() > 1e-5
    products = (unit(fast.vectors) * unit(exact.vectors)).sum(1)
    assert products.min() > 0.999
    again = run(model, corpus, out)
    assert again.precision == "float32"
    np.testing.assert_array_equal(again.vectors, exact.vectors)


@pytest.mark.parametrize(
    "made, given, remedy",
    [
        ({"precision": "bfloat16"}, {}, "give --precision bfloat16"),
        ({"crops": 2}, {}, "give --crops 2"),
        ({"crops": 2}, {"crops": 2, "crop_seconds": 2.0}, "give --crop-seconds 4.0"),
        ({}, {"max_pause": 0.5}, "leave out --max-pause"),
        ({}, {"model": "default"}, "give the model that made them"),
    ],
)
def test_a_cohort_is_embedded_as_the_utterances_were(model, corpus, tmp_path, made, given, remedy):
    run(model, corpus, tmp_path / "x", **made)
    cohort = {"model": model, "cohort": str(corpus / "utterances.tsv"), "plot": False} | given
    with pytest.raises(SasvError, match=f"x: these embeddings .*cohort.*; {remedy}"):
        evaluate(options(corpus, tmp_path / "y", embeddings=str(tmp_path / "x"), **cohort))


def test_evaluation_names_its_precision(model, corpus, tmp_path, capsys):
    run(model, corpus, tmp_path / "fast", precision="bfloat16")
    fast = str(tmp_path / "fast")
    result = evaluate(options(corpus, tmp_path / "y", embeddings=fast, plot=False))
    assert result["precision"] == "bfloat16"
    assert "scores.tsv, computed in bfloat16" in capsys.readouterr().err
    result = evaluate(options(corpus, tmp_path / "z", model=model, plot=False))
    assert json.loads((tmp_path / "z" / "metrics.json").read_text())["precision"] == "float32"
    assert result["precision"] == "float32"


def test_bfloat16_is_warned_of_where_it_is_slower(model, monkeypatch, caplog):
    for able in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"amx_bf16": able})
        caplog.clear()
        load_model(model, "cpu", precision="bfloat16")
        assert ("float32, the default, would be faster" in caplog.text) == (not able)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    caplog.clear()
    load_model(model, "cpu", precision="bfloat16")
    assert not caplog.text


@pytest.fixture
def damaged(corpus, tmp_path):
    root = tmp_path / "damaged"
    shutil.copytree(corpus, root)
    (root / "audio" / "s0-0.wav").write_bytes(b"junk")
    (root / "audio" / "s3-1.wav").unlink()
    return root


def test_bad_files_are_reported_at_the_end_and_the_good_kept(model, damaged, tmp_path):
    with pytest.raises(SasvError, match=r"2 utterances have no embedding .*failed\.tsv"):
        run(model, damaged, tmp_path / "out")
    found = Embeddings.load(tmp_path / "out")
    assert set(found.failures) == {"s0-0", "s3-1"}
    assert "no such file" in found.failures["s3-1"]
    assert len(found.vectors) == len(load_utterances(damaged / "utterances.tsv")) - 2
    assert np.isfinite(found.vectors).all()


def options(corpus, out, **changes):
    values = {
        "utterances": str(corpus / "utterances.tsv"),
        "enrolments": str(corpus / "enrolments_dev.tsv"),
        "trials": str(corpus / "trials_dev.tsv"),
        "out": str(out),
        "intervals": 20,
    }
    return EvaluateOptions(**(values | changes))


@pytest.mark.slow
def test_evaluate(model, corpus, tmp_path):
    result = evaluate(options(corpus, tmp_path, model=model))
    assert "SASV-EER" in evaluate_text(result, None)
    scores = load_scores(tmp_path / "scores.tsv")
    assert (len(scores), result["targets"], result["spoofs"]) == (24, 8, 8)
    assert (tmp_path / "scores.png").stat().st_size > 10_000
    loaded = load_model(model)
    speaker, utterance = scores.table.text("speaker", 5), scores.table.text("utterance", 5)
    anything = SpeechLimits(min_enrolment=0, min_test=0)
    voiceprint = loaded.enrol([corpus / "audio" / f"{speaker}-{i}.wav" for i in (0, 1)], anything)
    expected = loaded.score(voiceprint, loaded.embed(corpus / "audio" / f"{utterance}.wav"))
    assert scores.values[5] == pytest.approx(expected, abs=1e-5)
    # the same from embeddings on disk
    run(model, corpus, tmp_path / "embeddings-alone")
    again = evaluate(
        options(corpus, tmp_path / "two", embeddings=str(tmp_path / "embeddings-alone"), plot=False)
    )
    assert again["sasv_eer"] == pytest.approx(result["sasv_eer"])


def test_evaluate_names_what_trials_lack(model, corpus, tmp_path):
    root = tmp_path / "c"
    shutil.copytree(corpus, root)
    text = (root / "trials_dev.tsv").read_text()
    (root / "trials_dev.tsv").write_text(text + "s99\ts6-2\ttarget\t-\n")
    with pytest.raises(
        TableError, match=r"trials_dev\.tsv: speaker s99 is not in .*enrolments_dev\.tsv"
    ):
        evaluate(options(root, tmp_path / "out", model=model))
    (root / "trials_dev.tsv").write_text(text)
    (root / "audio" / "s6-2.wav").write_bytes(b"")
    with pytest.raises(TableError, match=r"1 of its utterances could not be embedded .s6-2"):
        evaluate(options(root, tmp_path / "out", model=model))


@pytest.mark.parametrize("dense", [True, False])
def test_scores_are_cosines_with_mean_enrolment(dense):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, 8)).astype(np.float32)
    enrolled = enrolment_vectors(vectors, [[0, 1, 2], [3], [4, 5]])
    trials = 500 if dense else 20
    enrolment, utterance = rng.integers(0, 3, trials), rng.integers(0, 40, trials)
    found = score_trials(enrolled, vectors, enrolment, utterance)
    for index in range(trials):
        mean = vectors[[[0, 1, 2], [3], [4, 5]][enrolment[index]]].mean(axis=0)
        test = vectors[utterance[index]]
        expected = mean @ test / np.linalg.norm(mean) / np.linalg.norm(test)
        assert found[index] == pytest.approx(expected, abs=1e-6)


@pytest.mark.speech
def test_real_speech_in_batches_equals_single_files(trained, tmp_path):
    table = load_utterances(shared("speech", "utterances.tsv"), "split=test").take(np.arange(12))
    loaded = load_model(trained / "model.safetensors")
    together = extraction.embed_table(loaded, table, 100.0)
    for row in range(12):
        single = loaded.embed(table.path(row))
        assert np.linalg.norm(together.vectors[row] - single) / np.linalg.norm(single) < 1e-5
