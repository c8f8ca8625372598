"""kbctl: the command line of keybroker, built on keybroker_client and nothing else of this project."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # an error is one line of kbctl's; read when grpc is imported
