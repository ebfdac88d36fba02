"""Audio files in and out: any format, rate and channel count to mono float32 at 16 kHz."""

from sasv.audio.io import RATE, AudioInfo, check_speech, probe, read_audio, read_speech, write_audio

__all__ = ["RATE", "AudioInfo", "check_speech", "probe", "read_audio", "read_speech", "write_audio"]
