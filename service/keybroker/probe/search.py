"""Finds a CMK whose CreateKey got no answer, by its description.

Nothing counts but the whole description, read back by DescribeKey: a filter of ListKeys that the KMS ignores would
otherwise hand over CMKs of others, and what is found is scheduled for deletion.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from keybroker.adapters.kms.replies import read_key
from keybroker.domain.errors import KmsError
from keybroker.domain.external_key import ORIGIN_EXTERNAL, ExternalKey
from keybroker.probe.kms_calls import Exchange, KmsCalls

PAGE_SIZE = 100
Filters = Mapping[str, str]


def list_keys(calls: KmsCalls, filters: Filters, *, what: str, page: int = 1, size: int = PAGE_SIZE) -> Exchange:
    """One page of ListKeys with `filters`, each name with one value. Contract 1.7."""
    entries = [{"Key": name, "Values": [value]} for name, value in filters.items()]
    parameters = {"PageNumber": str(page), "PageSize": str(size)}
    if entries:
        parameters["Filters"] = json.dumps(entries, separators=(",", ":"))
    return calls.call("ListKeys", parameters, what=what)


def listed(exchange: Exchange) -> list[str]:
    """The key ids on a page; empty where the page does not look like one."""
    keys = exchange.body.get("Keys")
    entries = keys.get("Key") if isinstance(keys, dict) else None
    if not isinstance(entries, list):
        return []
    return [entry["KeyId"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("KeyId"), str)]


def total(exchange: Exchange) -> int | None:
    """TotalCount of a page, if it has one."""
    count = exchange.body.get("TotalCount")
    return count if isinstance(count, int) else None


class Search:
    """Looks through what ListKeys gives for the filters, in their order, the last page first."""

    def __init__(self, calls: KmsCalls, *, region: str, dkms_instance_id: str) -> None:
        self._calls = calls
        self._region = region
        self._dkms_instance_id = dkms_instance_id

    def find(self, description: str, filters: Sequence[Filters]) -> ExternalKey | None:
        """The CMK of the instance with exactly this description, if one is listed. Raises ProbeStopped."""
        seen: set[str] = set()
        for each in filters:
            for key_id in self._listed(each):
                if key_id not in seen:
                    seen.add(key_id)
                    key = self._described(key_id, description)
                    if key is not None:
                        return key
        return None

    def _listed(self, filters: Filters) -> Iterator[str]:
        first = list_keys(self._calls, filters, what="look for a CMK whose CreateKey got no answer")
        pages = -(-(total(first) or 0) // PAGE_SIZE)
        for page in range(pages, 1, -1):
            yield from listed(list_keys(self._calls, filters, what="look on", page=page))
        yield from listed(first)

    def _described(self, key_id: str, description: str) -> ExternalKey | None:
        exchange = self._calls.call("DescribeKey", {"KeyId": key_id}, what="read the description of a candidate")
        metadata = exchange.body.get("KeyMetadata")
        if not isinstance(metadata, dict) or metadata.get("Description") != description:
            return None
        try:
            key = read_key(exchange.body, region=self._region)
        except KmsError:
            return None
        ours = key.name.key_id == key_id and key.origin == ORIGIN_EXTERNAL
        return key if ours and key.dkms_instance_id == self._dkms_instance_id else None
