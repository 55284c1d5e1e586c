"""Bundle in, records and a report out: latency and memory on this computer, beside PyTorch and naive ONNX."""
