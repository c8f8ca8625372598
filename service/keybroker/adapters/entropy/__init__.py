"""Sources of random bytes for key material: the operating system's (the default) and an HSM's through PKCS#11.

pkcs11_token.py is not imported from here: it needs the extra `[pkcs11]`.
"""

from keybroker.adapters.entropy.system import SystemEntropy

__all__ = ["SystemEntropy"]
