"""The search written as ONNX graphs, and what runs them; run time needs neither torch nor onnx."""
