"""Apps that the benchmarks serve, here and with fal's own SDK: of them only the import line is changed."""
