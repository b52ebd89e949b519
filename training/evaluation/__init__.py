"""Protocols, metrics, baselines, audit and reports."""
