"""Ground floor: errors, atomic files, progress, registries. Imports nothing of sasv."""
