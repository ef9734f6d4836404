"""Models: their graphs, weights and preparation of images, on ONNX Runtime."""
