"""Measurements anyone can repeat: `python -m bench.NAME [--quick] [--json]`.

Every script prints one JSON object last with `--json`, ends within 60 s with `--quick`, and in its long form
writes that object to bench/results/.
"""
