"""A broker as `keybroker serve` runs it: `python -m tests.residue.broker CONFIG [unwiped] [core]`.

`unwiped` leaves the wiping out, which nothing in production can do. `core` raises the limit for core files to what the
system allows, so that a broker which does not lower it leaves one.
"""

import resource
import sys

from keybroker.__main__ import main
from keybroker.domain.key_material import KeyMaterial


def _forget(material: KeyMaterial) -> None:
    material._slot = None


if __name__ == "__main__":
    if "unwiped" in sys.argv:
        KeyMaterial.wipe = _forget  # type: ignore[method-assign]
    if "core" in sys.argv:
        most = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    sys.exit(main(["serve", "--config", sys.argv[1]]))
