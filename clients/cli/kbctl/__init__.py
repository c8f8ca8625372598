"""kbctl: the command line of keybroker, built on keybroker_client and nothing else of this project."""
