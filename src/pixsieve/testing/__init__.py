"""Makers of inputs, faults and conformance suites, for the tests of pixsieve and of what extends
it."""
