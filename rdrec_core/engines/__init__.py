"""Engines: one Protocol (base.py), a torch reference and an ONNX Runtime implementation."""
