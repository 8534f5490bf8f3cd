"""Fuzzers for everything that reads the network: bytes in; a value or a documented error out, and nothing else.

`targets` says what is called and what must hold, `corpus` where a fuzzer begins. The ordinary suite runs every target
over the corpus and over mutations of it (`test_targets`); `python -m tests.fuzz` has atheris look for more.
"""
