"""The emulator's version, as the marker header of every reply gives it."""

VERSION = "0.1.0"

MARKER_HEADER = "x-kms-emulator"
