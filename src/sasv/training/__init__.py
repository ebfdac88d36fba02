"""Training: schedules, the trainer of all stages, selection on development trials."""
