"""Plans, crops, and augmentations."""

import numpy as np
import pytest
import torch

from conftest import shared
from sasv.audio import write_audio
from sasv.batches.augment import ALL, Augmenter, at_snr, convolve
from sasv.batches.dataset import CropDataset, Item, PlanSampler, collate, crop_samples, wrap
from sasv.batches.loading import BatchLoader
from sasv.batches.on_device import apply_changes, pack_changes
from sasv.batches.plan import PairPlanner
from sasv.core.errors import SasvError
from sasv.corpora import asvspoof2019
from sasv.tables import Table, Utterances


def planner(utterances_of, pairs=4, spoof_pairs=0, **options):
    """Return a planner for speakers with the given numbers of utterances, and two spoofed rows for
    each speaker and attack.
    """
    speaker = np.repeat(np.arange(len(utterances_of)), utterances_of)
    spoofed = np.zeros(len(speaker), bool)
    attack = np.zeros(len(speaker), np.int32)
    if spoof_pairs:
        extra = np.repeat(np.arange(len(utterances_of)), 4)
        speaker = np.concatenate((speaker, extra))
        spoofed = np.concatenate((spoofed, np.ones(len(extra), bool)))
        attack = np.concatenate((attack, np.tile([1, 1, 2, 2], len(utterances_of)))).astype(
            np.int32
        )
    return (
        PairPlanner(speaker, spoofed, attack, len(utterances_of), pairs, spoof_pairs, **options),
        speaker,
        attack,
    )


def test_stage1_batches_hold_pairs_of_different_speakers():
    machine, speaker, _ = planner([10, 7, 2, 5, 8, 9, 4, 6], pairs=4)
    plan = machine.plan(0)
    seen = []
    for rows, labels in zip(plan.rows, plan.labels):
        assert len(set(labels.tolist())) == 4
        assert (speaker[rows] == labels[:, None]).all()
        assert (rows[:, 0] != rows[:, 1]).all()
        seen += rows.ravel().tolist()
    assert len(seen) == len(set(seen))
    assert len(plan) >= 5  # 24 pairs, of which 20 fit into five batches of four


def test_plans_depend_on_seed_and_epoch_alone():
    one, *_ = planner([10, 7, 5, 8, 9], seed=1)
    two, *_ = planner([10, 7, 5, 8, 9], seed=1)
    np.testing.assert_array_equal(one.plan(3).rows, two.plan(3).rows)
    assert not np.array_equal(one.plan(3).rows[0], one.plan(4).rows[0])
    other, *_ = planner([10, 7, 5, 8, 9], seed=2)
    assert not np.array_equal(one.plan(3).rows[0], other.plan(3).rows[0])


def test_ranks_share_a_plan_without_overlap():
    machine, *_ = planner([20] * 10, pairs=4)
    plan = machine.plan(0)
    shares = [plan.share(rank, 3) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    rows = np.concatenate([share.rows.reshape(-1) for share in shares])
    assert len(rows) == len(np.unique(rows))


def test_number_of_batches_and_utterances_a_speaker():
    machine, speaker, _ = planner([30] * 5, pairs=5, batches_per_epoch=40)
    assert len(machine.plan(0)) == 40
    machine, speaker, _ = planner([30] * 5, pairs=5, max_utterances_per_speaker=8)
    plan = machine.plan(0)
    assert np.bincount(speaker[plan.rows.ravel()]).max() == 8


def test_single_utterances_pair_with_themselves():
    machine, *_ = planner([1] * 6, pairs=3)
    plan = machine.plan(0)
    assert (plan.rows[..., 0] == plan.rows[..., 1]).all()
    assert len(plan) == 2


def test_spoofed_pairs_are_of_one_speaker_and_attack_and_of_the_last_class():
    machine, speaker, attack = planner([10] * 6, pairs=4, spoof_pairs=5)
    plan = machine.plan(0)
    assert plan.rows.shape[1] == 9
    spoof = plan.rows[:, 4:]
    assert (plan.labels[:, 4:] == 6).all()
    assert (plan.labels[:, :4] < 6).all()
    assert (attack[spoof] > 0).all()
    assert (attack[spoof[..., 0]] == attack[spoof[..., 1]]).all()
    assert (speaker[spoof[..., 0]] == speaker[spoof[..., 1]]).all()


@pytest.mark.speech
def test_the_published_epoch_on_the_real_lists():
    """There are 63 batches of 20 pairs on train, and 38 of 40 pairs on train+dev, as in the
    reference recipe.
    """
    folder = shared("protocols", "asvspoof2019_la")
    train = asvspoof2019.read_countermeasure(folder / "ASVspoof2019.LA.cm.train.trn.txt.gz")
    dev = asvspoof2019.read_countermeasure(folder / "ASVspoof2019.LA.cm.dev.trl.txt.gz")
    for rows, speakers, batches in ((train, 20, 63), (train + dev, 40, 38)):
        names = sorted({row[0] for row in rows if row[2] == "bonafide"})
        speaker = np.array([names.index(row[0]) if row[0] in names else len(names) for row in rows])
        spoofed = np.array([row[2] == "spoof" for row in rows])
        attacks = sorted({row[3] for row in rows})
        attack = np.array([attacks.index(row[3]) for row in rows])
        machine = PairPlanner(speaker, spoofed, attack, len(names), speakers, speakers)
        assert len(names) == speakers
        assert len(machine.plan(0)) == batches


def test_number_of_batches_from_spoofed_pairs():
    """8 speakers and 2 attacks with 2 utterances each give 16 spoofed pairs, each used once, while
    bona fide pairs are repeated.
    """
    machine, _, _ = planner([4] * 8, pairs=4, spoof_pairs=3, batches_per_epoch="spoofs")
    plan = machine.plan(0)
    assert len(plan) == 6
    spoofed = plan.rows[:, 4:].reshape(-1, 2)[:16]
    assert len({tuple(sorted(pair)) for pair in spoofed.tolist()}) == 16
    for wrong in ({"batches_per_epoch": "spoofs"}, {"batches_per_epoch": 0}):
        with pytest.raises(SasvError, match="--batches-per-epoch"):
            planner([4] * 8, **wrong)


def test_a_batch_split_among_processes_keeps_its_items_and_their_draws():
    plan = planner([10] * 8, pairs=4, spoof_pairs=4)[0].plan(0)
    parts = [plan.split(rank, 2, pairs=4) for rank in range(2)]
    for part in parts:
        assert part.rows.shape[1] == 4
        assert ((part.labels == 8).sum(axis=1) == 2).all()  # half of each part is spoofed too
    for name in ("rows", "labels", "keys"):
        both = np.concatenate([getattr(part, name) for part in parts], axis=1)
        order = np.argsort(np.concatenate([part.keys[0, :, 1] for part in parts]))
        assert np.array_equal(both[:, order], getattr(plan, name))


@pytest.mark.slow
def test_an_epoch_of_voxceleb2_is_planned_within_seconds():
    """1.09 million utterances of 5,994 speakers. The limit is far above the usual time (see
    benchmarks).
    """
    rng = np.random.default_rng(0)
    speaker = rng.integers(5994, size=1_092_009)
    machine = PairPlanner(
        speaker, np.zeros(len(speaker), bool), np.zeros(len(speaker), np.int32), 5994, 100
    )
    plan = machine.plan(3)
    assert 5300 < len(plan) < 5460
    shares = [plan.share(rank, 4) for rank in range(4)]
    assert len({len(share) for share in shares}) == 1
    rows = np.concatenate([share.rows.ravel() for share in shares])
    assert len(np.unique(rows)) == len(rows)


def test_too_few_speakers_or_no_spoofs_are_reported():
    with pytest.raises(
        SasvError, match="needs 9 different speakers, but the training table has only 3.*--pairs 3"
    ):
        planner([4, 4, 4], pairs=9)
    zeros = np.zeros(4, np.int64)
    with pytest.raises(SasvError, match="no row with the label spoof"):
        PairPlanner(zeros, np.zeros(4, bool), zeros, 1, 1, 2)


def table(tmp_path, voice, seconds, rate=16000):
    for index, length in enumerate(seconds):
        write_audio(tmp_path / f"{index}.wav", voice(int(length * rate), index))
    rows = range(len(seconds))
    columns = {
        "utterance": rows,
        "path": [f"{row}.wav" for row in rows],
        "speaker": [f"s{row}" for row in rows],
    }
    return Utterances(Table.build(columns, str(tmp_path / "u.tsv")))


def test_crops(tmp_path, voice):
    dataset = CropDataset(table(tmp_path, voice, [3.0, 0.5, 4.2]), frames=100)
    crops, label, _ = dataset[Item(0, 2, 5, (0, 0, 0, 0))]
    assert crops.shape == (2, crop_samples(100))
    assert label == 5
    again, *_ = dataset[Item(0, 2, 5, (0, 0, 0, 0))]
    assert bool((crops == again).all())
    other, *_ = dataset[Item(0, 2, 5, (0, 0, 0, 1))]
    assert not bool((crops == other).all())
    short, *_ = dataset[Item(1, 1, 0, (0, 0, 0, 0))]  # two halves of half a second, repeated
    assert not bool((short[0] == short[1]).all())
    assert bool((short[0, :4000] == short[0, 4000:8000]).all())


def test_two_crops_of_one_utterance_do_not_overlap(tmp_path):
    write_audio(tmp_path / "0.wav", np.linspace(-1, 1, 64000, dtype=np.float32))
    columns = {"utterance": ["0"], "path": ["0.wav"], "speaker": ["s"]}
    dataset = CropDataset(Utterances(Table.build(columns, str(tmp_path / "u.tsv"))), frames=150)
    orders = set()
    for seed in range(30):
        (one, two), *_ = dataset[Item(0, 0, 0, (seed,))]
        assert float(one.max()) < float(two.min()) or float(two.max()) < float(one.min())
        orders.add(float(one[0]) < float(two[0]))
    assert orders == {True, False}


def test_wrap_repeats_or_cuts_to_length():
    assert wrap(np.arange(3), 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert wrap(np.arange(9), 2).tolist() == [0, 1]


def test_broken_file_is_replaced_by_the_other_of_its_pair(tmp_path, voice, capsys):
    dataset = CropDataset(table(tmp_path, voice, [2.0, 2.0]), frames=50)
    (tmp_path / "1.wav").write_bytes(b"junk")
    crops, *_ = dataset[Item(0, 1, 0, (0,))]
    assert bool((crops[0] == crops[1]).all())
    assert dataset[Item(1, 1, 0, (0,))] is None
    said = capsys.readouterr().err
    assert said.count("left out:") == 1  # once a file, not once a read
    assert "1.wav: not an audio file" in said
    good = dataset[Item(0, 0, 3, (0,))]
    waves, labels, _ = collate([None, good], 800)
    assert (waves.shape[0], labels.tolist()) == (1, [3])
    assert collate([None], 800)[0].shape == (0, 2, 800)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(tmp_path, voice, workers):
    utterances = table(tmp_path, voice, [2.0] * 6)
    write_audio(tmp_path / "noise" / "n.wav", voice(40000, 9))
    dataset = CropDataset(utterances, 50, Augmenter(str(tmp_path / "noise")))
    machine = PairPlanner(np.arange(6), np.zeros(6, bool), np.zeros(6, np.int32), 6, 2)

    def batches(count):
        with BatchLoader(dataset, count, pairs=4).batches(
            PlanSampler(machine.plan(0), 0, 0)
        ) as batches:
            return list(batches)

    for (a, b), (c, d) in zip(batches(0), batches(workers), strict=True):
        assert bool((a == c).all()) and bool((b == d).all())


@pytest.fixture
def musan(tmp_path, voice):
    rng = np.random.default_rng(0)
    for kind, count in (("noise", 2), ("speech", 8), ("music", 1)):
        for index in range(count):
            wave = 0.1 * rng.standard_normal(24000).astype(np.float32)
            write_audio(tmp_path / "musan" / kind / "x" / f"{index}.wav", wave)
    rir = np.zeros(1600, np.float32)
    rir[[0, 500]] = [0.8, 0.4]
    write_audio(tmp_path / "rirs" / "Room001" / "r.wav", rir)
    return Augmenter(str(tmp_path / "musan"), str(tmp_path / "rirs"))


def test_all_seven_augmentations(musan, voice):
    wave = voice(16000)
    assert tuple(musan.choices) == ALL
    for name in ALL:
        changed = musan.draw(name, len(wave), np.random.default_rng(1))(wave)
        assert changed.shape == wave.shape
        assert np.isfinite(changed).all()
        assert np.array_equal(changed, wave) == (name == "none")
    drawn = {np.random.default_rng(seed).integers(len(ALL)) for seed in range(100)}
    assert len(drawn) == 7


def test_the_device_augments_as_the_cpu_does(musan, tmp_path, voice):
    """Each augmentation alone, and whole batches as they are drawn, with codecs and changes of
    level.
    """
    waves = np.stack([voice(32240, 1), 0.3 * voice(32240, 2), np.zeros(32240, np.float32)])
    for samples in (32240, 8001):
        for name in ALL:
            for seed in range(3):
                crops = waves[:, :samples]
                drawn = [
                    musan.draw(name, samples, np.random.default_rng([seed, row]))
                    for row in range(len(crops))
                ]
                expected = np.stack([change(crop) for change, crop in zip(drawn, crops)])
                packed = pack_changes([(change, np.float32(1)) for change in drawn], samples)
                found = apply_changes(torch.from_numpy(crops)[None], packed)[0].numpy()
                np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("pipes", [False, True])
def test_batches_augmented_on_the_device_are_those_of_the_cpu(tmp_path, voice, musan, pipes):
    utterances = table(tmp_path, voice, [2.0] * 6)
    machine = PairPlanner(np.arange(6), np.zeros(6, bool), np.zeros(6, np.int32), 6, 2)
    musan.codecs = ["mulaw"]
    musan.level_range = 6.0

    def batches(later, epoch):
        dataset = CropDataset(utterances, 50, musan, augment_later=later)
        loader = BatchLoader(dataset, 0, pairs=4)
        loader.shared_memory = not pipes
        with loader.batches(PlanSampler(machine.plan(0), 0, epoch)) as given:
            return list(given)

    for epoch in range(4):
        for (a, b), (c, d) in zip(batches(False, epoch), batches(True, epoch), strict=True):
            np.testing.assert_allclose(a.numpy(), c.numpy(), atol=1e-5)
            assert bool((b == d).all())


def test_signal_to_noise_ratios(musan, voice):
    wave = voice(16000)

    def ratio(kind, seed):
        noise = musan.draw(kind, len(wave), np.random.default_rng(seed))(wave) - wave
        return 10 * np.log10(np.square(wave).mean() / np.square(noise).mean())

    for kind, low, high in (("noise", 0, 15), ("music", 5, 15)):
        ratios = [ratio(kind, seed) for seed in range(40)]
        assert low - 0.1 <= min(ratios) < low + 4 and high - 4 < max(ratios) <= high + 0.1
    # 3 to 7 independent speakers at 13-20 dB each: 4.5 to 15.3 dB together
    babble = [ratio("speech", seed) for seed in range(40)]
    assert min(babble) > 4 and max(babble) < 16
    assert np.square(at_snr(wave, wave, 10.0)).mean() == pytest.approx(
        np.square(wave).mean() / 10, rel=1e-4
    )
    assert not at_snr(wave, np.zeros(100, np.float32), 5.0).any()


def test_reverberation_is_a_convolution_with_unit_energy():
    wave, rir = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 0.25, 0.125])
    np.testing.assert_allclose(convolve(wave, rir), np.convolve(wave, rir)[:4], atol=1e-6)


def test_speed_changes_pitch_and_keeps_length(musan):
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    peaks = {
        int(
            np.argmax(
                np.abs(
                    np.fft.rfft(
                        musan.draw("speed", 16000, np.random.default_rng(seed))(tone)[:15000]
                    )
                )
            )
            * 16
            / 15
        )
        for seed in range(8)
    }
    assert {round(peak, -1) for peak in peaks} == {950, 1050}


def test_augmenter_with_only_a_noise_folder(tmp_path, voice):
    write_audio(tmp_path / "n" / "a.wav", voice(8000))
    assert Augmenter(str(tmp_path / "n")).choices == ["none", "noise", "speed"]
    assert Augmenter().choices == ["none", "speed"]
    with pytest.raises(SasvError, match="no such folder"):
        Augmenter(str(tmp_path / "nope"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SasvError, match="no audio files"):
        Augmenter(str(tmp_path / "empty"))


def test_good_files_are_not_reported(tmp_path, voice, capsys):
    dataset = CropDataset(table(tmp_path, voice, [2.0, 2.0]), frames=50)
    assert dataset[Item(0, 1, 0, (0,))] is not None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("sizes", [{"pairs": 0}, {"pairs": -1}, {"pairs": 2, "spoof_pairs": -1}])
def test_empty_batch_is_refused(sizes):
    with pytest.raises(SasvError, match="--pairs must be at least 1"):
        planner([4] * 4, **sizes)


def test_a_table_of_spoofs_alone_gives_no_impossible_advice():
    zeros = np.zeros(4, np.int64)
    with pytest.raises(SasvError, match="has only 0 with bona fide speech$"):
        PairPlanner(zeros, np.ones(4, bool), zeros, 1, 2, 2)
