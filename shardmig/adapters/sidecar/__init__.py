"""What a target keeps beside its native forms, so that nothing is lost: the same for every target.

manifest      how one run was written: keys, fields, types, files
exact         the original rows of everything that the target changed
overlay       puts exact rows back in the place of their approximations
series_files  string and histogram series as files: lossless, and shown
fitting       what targets with whole-numbered steps have in common
scalars       the exact text of a scalar
tables        series as Arrow tables
"""
