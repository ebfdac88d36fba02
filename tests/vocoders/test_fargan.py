"""The vocoder FARGAN, with a program in place of fargan_demo that delays speech as that does."""

import sys

import numpy as np
import pytest

from sasv.core.errors import SasvError
from sasv.vocoders import make_vocoder

AS_FARGAN = """
import sys
task, given, made = sys.argv[1:]
data = open(given, "rb").read()
frames = data[: len(data) // 320 * 320]
if task == "-fargan-synthesis":
    frames = (bytes(480) + frames)[5 * 320 :][: len(frames) - 5 * 320]
open(made, "wb").write(frames)
"""


def program(folder, lines):
    """Return the path of a program in Python with these lines."""
    path = folder / "fargan_demo"
    path.write_text(f"#!{sys.executable}\n{lines}")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("samples", (16000, 16001, 159))
def test_copy_is_aligned_with_the_original(tmp_path, samples):
    # The program returns what it is given, without the first five frames and 240 samples late.
    vocoder = make_vocoder("fargan", program(tmp_path, AS_FARGAN))
    wave = (0.1 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)
    copy = vocoder(wave)
    assert copy.shape == wave.shape
    np.testing.assert_allclose(copy, wave, atol=4e-5)  # 16 bits


def test_program_must_exist():
    with pytest.raises(SasvError, match="nowhere: no such file; it must be the program"):
        make_vocoder("fargan", "nowhere")
    with pytest.raises(SasvError, match=r"needs weights.*benchmarks/fargan\.sh builds it"):
        make_vocoder("fargan")


@pytest.mark.parametrize("status", (0, 3))
def test_program_that_is_not_fargan(tmp_path, status):
    vocoder = make_vocoder("fargan", program(tmp_path, f"raise SystemExit({status})"))
    with pytest.raises(SasvError, match=f"status {status} and wrote nothing; it must be the prog"):
        vocoder(np.ones(1600, np.float32))


def test_file_that_is_no_program(tmp_path):
    path = tmp_path / "100%.pt"
    path.write_bytes(b"not a program")
    with pytest.raises(SasvError, match=r"100%\.pt: .*; it must be the program"):
        make_vocoder("fargan", str(path))(np.ones(1600, np.float32))
