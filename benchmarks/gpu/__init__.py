"""What recording costs on a GPU, beside the measured speed of its link: ``python -m benchmarks.gpu``."""
