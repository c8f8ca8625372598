"""docs/access.md: its grpcurl commands as they stand there, its policy, its explanation."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from keybroker.__main__ import main
from keybroker.policy_file import parse_policy
from kms_emulator import Emulator
from tests.integration.conftest import RunningBroker
from tests.integration.test_identity import ALLOWED, SUBJECT, World
from tests.interop.documents import ROOT, run_block, shell_blocks

DOCUMENT = (ROOT / "docs/access.md").read_text()


@pytest.mark.parametrize("method", ["certificate", "token"])
def test_grpcurl_works_with_certificates_and_with_a_bearer_token(
    emulator: Emulator, make_broker: Callable[..., RunningBroker], tmp_path: Path, method: str
) -> None:
    world = World(tmp_path, emulator)
    with_certificate, with_token = shell_blocks("docs/access.md")
    block, sections = {
        "certificate": (with_certificate, world.mtls_sections),
        "token": (with_token, world.jwt_sections),
    }[method]
    broker = make_broker(**sections())
    mine = world.authority.issue(uris=(ALLOWED,))
    for name, content in (("client.crt", mine.chain), ("client.key", mine.private_key)):
        world.write(name, content)
    world.write("token.jwt", world.issuer.token(SUBJECT).encode())
    address = broker.address.replace("127.0.0.1", "localhost")
    ended = run_block(
        block.replace("localhost:50051", address),
        address=address,
        folder=tmp_path,
        KEY_ID=world.key_id,
        PROTOS=str(ROOT / "protos"),
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["key"]["keyId"] == world.key_id


def test_policy_of_the_document_is_valid_and_explained_as_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = [
        block for block in re.findall(r"^```yaml\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL) if "rules:" in block
    ]
    assert [rule.name for rule in parse_policy(text.encode()).rules] == ["payments", "operators"]
    (tmp_path / "policy.yaml").write_text(text)
    (command, answer) = re.findall(
        r"^\$ keybroker (policy explain .*?)\n(denied.*?)$", DOCUMENT, re.MULTILINE | re.DOTALL
    )[0]
    arguments = command.replace("\\\n", " ").replace("policy.yaml", str(tmp_path / "policy.yaml")).split()
    assert main(arguments) == 1
    assert capsys.readouterr().out.strip() == answer


def test_document_names_every_key_of_a_rule() -> None:
    from keybroker.policy_file import _NewKeys, _Rule  # noqa: PLC0415

    keys = [key for key in _Rule.model_fields if key != "new_keys"]
    keys += [f"new_keys.{key}" for key in _NewKeys.model_fields]
    assert [key for key in keys if f"`{key}`" not in DOCUMENT] == []
