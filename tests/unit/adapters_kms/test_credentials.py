import pytest

from keybroker.adapters.kms.credentials import Credentials

CANARY = "canary-4Wq9"


def test_repr_shows_the_id_and_no_secret() -> None:
    shown = repr(Credentials("LTAI-1", f"{CANARY}-secret", f"{CANARY}-token"))
    assert "LTAI-1" in shown
    assert CANARY not in shown


def test_whitespace_around_values_is_dropped() -> None:
    assert Credentials(" id\n", "\tsecret\r\n", " token ") == Credentials("id", "secret", "token")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("", "secret"), "access_key_id is empty"),
        (("id", " \n"), "access_key_secret is empty"),
        (("id", f"{CANARY} x"), "access_key_secret holds whitespace"),
        (("id", f"{CANARY}\nx"), "access_key_secret holds whitespace"),
        (("id", f"{CANARY}\u00e9"), "access_key_secret holds whitespace or a character that is not printable ASCII"),
        (("i d", "secret"), "access_key_id holds whitespace"),
        (("id", "secret", f"{CANARY}\x00"), "security_token holds whitespace"),
    ],
)
def test_bad_value_is_refused_by_name_only(values: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Credentials(*values)
    assert CANARY not in str(caught.value)
