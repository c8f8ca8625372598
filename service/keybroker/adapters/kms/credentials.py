"""One access key of the KMS's account. Who reads it from environment or files, and when, is not decided here."""

from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key, with `security_token` a temporary one of STS. Its repr shows the id only.

    Whitespace around a value is dropped, as a file's last line break is; whitespace or anything but printable ASCII
    inside is a ValueError that names the field, never the value. Source: contract 8 (signature failures are mostly
    whitespace in the secret).
    """

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name).strip()
            if not value and each.name != "security_token":
                raise ValueError(f"{each.name} is empty")
            if not all("!" <= character <= "~" for character in value):
                raise ValueError(f"{each.name} holds whitespace or a character that is not printable ASCII")
            object.__setattr__(self, each.name, value)
