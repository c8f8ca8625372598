"""`keybroker probe-kms`: asks a live KMS instance what its documentation leaves open (contract section 9).

It makes throwaway CMKs and schedules their deletion; what it sees goes into a report. It shares the adapter's signing
and transport, and nothing of the broker's import path: the material it makes protects nothing.
"""
