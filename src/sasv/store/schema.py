"""The tables of a store."""

TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value {blob} NOT NULL);
CREATE TABLE voiceprints (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, speaker TEXT NOT NULL, label TEXT NOT NULL,
    model TEXT NOT NULL, net_speech {real} NOT NULL, created {real} NOT NULL, used {real},
    expires {real}, consent TEXT NOT NULL, sealed {blob} NOT NULL,
    UNIQUE (tenant, speaker, label)
);
CREATE TABLE optouts (digest TEXT PRIMARY KEY, time {real} NOT NULL);
CREATE TABLE audit (
    number {number} PRIMARY KEY, time {real} NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL,
    details TEXT NOT NULL, digest TEXT NOT NULL
);
"""
COLUMNS = "id, tenant, speaker, label, model, net_speech, created, expires, consent, used, sealed"
"""All but the last two are encrypted together with the embeddings, so that no row can be changed
unnoticed.
"""
