"""Makers of inputs and faults, and conformance suites, for whoever tests what extends pixsieve."""
