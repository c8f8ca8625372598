"""Tests of the KMS adapter. They open sockets on the loopback address only."""
