"""On PYTHONPATH of Ray's processes: jsonschema does without the real one, whose import takes a second of each process."""

raise ImportError("not needed")
