"""Reads and writes audio files. Audio of any format, sample rate, and number of channels is
converted to mono float32 at 16 kHz.
"""

from sasv.audio.channels import AUTO, check_channel
from sasv.audio.formats import SUFFIXES, is_audio_name
from sasv.audio.io import RATE, check_speech, measure, probe, read_audio, read_speech, write_audio
from sasv.audio.source import AudioInfo, Length

__all__ = [
    "AUTO",
    "RATE",
    "SUFFIXES",
    "AudioInfo",
    "Length",
    "check_channel",
    "check_speech",
    "is_audio_name",
    "measure",
    "probe",
    "read_audio",
    "read_speech",
    "write_audio",
]
