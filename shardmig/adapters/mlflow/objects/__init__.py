"""What MLflow has beside runs: registered models, prompts, logged models, traces, evaluation datasets, experiments.

Each is an entity of its own scope with typed fields, so plans, shards, journals, archives and reports treat it as a run.
Read from top to bottom: reading (what the source lists and reads) and writing (what the target finds, writes and reads
back), both over one module for each class; base says what a class must do. changes keeps what MLflow's API cannot be
given; references leads from an object to another one, here and in the archive.
"""
