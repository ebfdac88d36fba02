"""Stores voiceprints lawfully: encrypted, with expiry, opt-out, and an audit trail."""

from sasv.store.duplicates import Duplicate, DuplicateVoice
from sasv.store.record import Receipt, Stored
from sasv.store.store import VoiceprintStore

__all__ = ["Duplicate", "DuplicateVoice", "Receipt", "Stored", "VoiceprintStore"]
